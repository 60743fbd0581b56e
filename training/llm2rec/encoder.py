"""What LLM2Rec leaves: an encoder in sentence-transformers' format, to be named wherever a text encoder is.

Attention both ways is the config's `is_causal = false`, which transformers heeds when it loads the folder; the start
token is in the tokenizer; vectors are means over all tokens, of length 1.

Axes: E texts, H hidden size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError, field_validator
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch.nn import functional

from models.alignment.text_encoder import TextEncoder
from models.config import Config
from models.errors import ConfigError, ServerError
from training.llm2rec.batches import padded
from training.llm2rec.model import hidden_states, mean_pooled

RECORD_FILE = "llm2rec.json"
TOLERANCE = 1e-4
PROBED = 4
"""Texts that a written encoder is checked with."""


class EncoderError(ServerError):
    """A written encoder gives other vectors than the model that was trained. Raised by `write_encoder`."""


class Record(Config):
    """How an encoder was made.

    Attributes:
        llm: of which LLM.
        stages: by which stages.
        domains: fingerprints of the titles it was trained on, by the names of their datasets.
    """

    llm: str
    stages: list[str]
    domains: dict[str, str]

    @field_validator("domains", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        # Encoders of before know names alone.
        return dict.fromkeys(given, "") if isinstance(given, list) else given


def write_encoder(
    model: Any,
    tokenizer: Any,
    directory: Path,
    *,
    max_tokens: int,
    record: Record,
    probes: Sequence[str],
) -> None:
    """Write the folder, and load it again to see that it is the model.

    Args:
        model: a causal LM, seeing one way or both; its head is left out.
        tokenizer: that puts the start token before texts.
        directory: where; an encoder there is replaced.
        max_tokens: longer texts are cut, the start token included.
        record: how it was made, written beside it.
        probes: a few texts to check it with.

    Raises:
        EncoderError: what is loaded is something else.
    """
    model.eval()
    with tempfile.TemporaryDirectory() as raw:
        model.base_model.save_pretrained(raw)
        tokenizer.save_pretrained(raw)
        modules = [
            Transformer(raw, max_seq_length=max_tokens),
            Pooling(model.base_model.config.hidden_size, pooling_mode="mean"),
            Normalize(),
        ]
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(directory), create_model_card=False)
    (directory / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _check(model, tokenizer, directory, max_tokens, list(probes)[:PROBED])


def read_record(encoder: str) -> Record | None:
    """How the encoder in the folder `encoder` was made; None for one that is not LLM2Rec's.

    Raises:
        ConfigError: its record is damaged.
    """
    path = Path(encoder) / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path} is damaged: make the encoder again with `allmrec-train llm2rec`") from error


@torch.no_grad()
def text_vectors(model: Any, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
    """(E, H) vectors of length 1 of tokenised texts, in one batch, as training sees them but for dropout."""
    model.eval()
    batch = padded(tokens, model.device)
    return functional.normalize(mean_pooled(hidden_states(model, batch), batch.real), dim=1)


def _check(model: Any, tokenizer: Any, directory: Path, max_tokens: int, probes: list[str]) -> None:
    tokens = tokenizer(probes, truncation=True, max_length=max_tokens)["input_ids"]
    encoder = TextEncoder(str(directory), max_tokens)
    if encoder.tokenize(probes) != tokens:
        raise EncoderError(f"{directory}: its tokenizer gives other tokens when loaded than in training")
    difference = (encoder.encode(tokens) - text_vectors(model, tokens).cpu()).abs().max().item()
    if difference > TOLERANCE:
        raise EncoderError(f"{directory}: its vectors differ from those in training by {difference:.1e}")
