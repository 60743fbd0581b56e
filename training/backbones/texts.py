"""Text vectors of all items, as backbones read them: made once, kept in the stage's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from models.alignment.text_encoder import TextEncoder, catalogue_texts, encoder_fingerprint
from models.alignment.words import WordEncoder, with_words
from models.backbones.hybrid import Hybrid, HybridConfig
from models.catalogue import Catalogue
from training.backbones.config import BackboneTrainingConfig
from training.backbones.external import external_inputs
from training.backbones.words import fit_words
from training.runs.distributed import processes
from training.runs.kept import kept_tensor

TENSOR = "text_vectors"


def encoder_inputs(*encoders: str) -> dict[str, str]:
    """Fingerprints of the text encoders that are folders, as inputs of a stage; all others their names tell."""
    folders = [encoder for encoder in encoders if Path(encoder).is_dir()]
    return {f"text encoder {folder}": encoder_fingerprint(folder) for folder in folders}


def backbone_inputs(config: BackboneTrainingConfig) -> dict[str, str]:
    """Fingerprints of all files that a backbone is made from, beside the data: imported vectors, text encoders.

    Raises:
        ConfigError: a file is missing.
    """
    settings = [preset.settings for preset in config.candidates.values() if preset.kind == Hybrid.kind]
    encoders = [str(given["text_encoder"]) for given in settings if "text_encoder" in given]
    return {**external_inputs(config), **encoder_inputs(*encoders)}


def item_text_vectors(catalogue: Catalogue, config: HybridConfig, directory: Path, device: str = "cpu") -> torch.Tensor:
    """q (N+1, d_T) of all items by a frozen encoder, and words beside it if the config wants any; row 0 zeros.

    Args:
        catalogue: the items.
        config: says which encoder, what it reads, and how many directions the words have.
        directory: where the vectors are kept, under a name made of the encoder and all texts.
        device: where the encoder runs.

    Raises:
        ConfigError: the text encoder cannot be loaded.
    """
    texts = catalogue_texts(catalogue, config.text_categories)
    sentences = sentence_vectors(texts, config.text_encoder, config.max_text_tokens, directory, device)
    return with_words(sentences, item_words(catalogue, config, directory), texts)


def sentence_vectors(texts: Sequence[str], encoder: str, max_tokens: int, directory: Path, device: str) -> torch.Tensor:
    """(N+1, d_T) vectors of all items' texts by a frozen encoder, row 0 zeros.

    Args:
        texts: N+1, as `catalogue_texts` makes them.
        encoder: "embedded", a hub name or a path.
        max_tokens: longer texts are cut.
        directory: where the vectors are kept, under a name made of the encoder and all texts.
        device: where the encoder runs.

    Raises:
        ConfigError: the text encoder cannot be loaded.
    """
    identity = [encoder, max_tokens, list(texts), *encoder_inputs(encoder).values()]
    path = directory / f"texts-{_digest(identity)}.safetensors"

    def encode() -> torch.Tensor:
        model = TextEncoder(encoder, max_tokens, device)
        vectors = model.encode(model.tokenize(texts)).cpu()
        vectors[0] = 0.0
        return vectors

    processes().alone(lambda: kept_tensor(path, TENSOR, encode))
    return load_file(path)[TENSOR]


def item_words(catalogue: Catalogue, config: HybridConfig, directory: Path) -> WordEncoder | None:
    """The words that `item_text_vectors` puts beside q, fitted once; None if the config wants none, or none are shared.

    Args:
        catalogue: the items.
        config: says what is read, and how many directions the words have.
        directory: where they are kept, under a name made of all texts.
    """
    if not config.word_directions:
        return None
    texts = catalogue_texts(catalogue, config.text_categories)
    folder = directory / f"words-{_digest([config.word_directions, texts])}"

    def fit() -> None:
        if WordEncoder.load(folder) is None and (words := fit_words(texts, config.word_directions)) is not None:
            words.save(folder)

    processes().alone(fit)
    return WordEncoder.load(folder)


def _digest(identity: list[Any]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
