"""Text vectors of all items, as backbones read them: encoded once, kept in the stage's folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.alignment.text_encoder import TextEncoder, catalogue_texts
from models.backbones.hybrid import HybridConfig
from models.catalogue import Catalogue
from models.files import written_atomically

TENSOR = "text_vectors"


def item_text_vectors(catalogue: Catalogue, config: HybridConfig, directory: Path, device: str = "cpu") -> torch.Tensor:
    """q (N+1, d_T) of all items by a frozen encoder, row 0 zeros.

    Args:
        catalogue: the items.
        config: says which encoder, and what it reads.
        directory: where they are kept, under a name made of the encoder and all texts.
        device: where the encoder runs.

    Raises:
        ConfigError: the text encoder cannot be loaded.
    """
    texts = catalogue_texts(catalogue, config.text_categories)
    identity = json.dumps([config.text_encoder, config.max_text_tokens, texts])
    path = directory / f"texts-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.safetensors"
    if not path.is_file():
        encoder = TextEncoder(config.text_encoder, config.max_text_tokens, device)
        vectors = encoder.encode(encoder.tokenize(texts)).cpu()
        vectors[0] = 0.0
        directory.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as partial:
            save_file({TENSOR: vectors}, partial)
    return load_file(path)[TENSOR]
