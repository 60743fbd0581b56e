"""Tensors that were computed before, in files that can be made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.files import written_atomically


def kept_tensor(path: Path, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The tensor of that name in a file; made, and the file written, where that is not there or damaged.

    Args:
        path: of the file; what the tensor depends on is for the caller to put into it.
        name: of the tensor in the file.
        make: computes it.
    """
    try:
        return load_file(path)[name]
    except (FileNotFoundError, SafetensorError, KeyError):
        tensor = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as partial:
        save_file({name: tensor}, partial)
    return tensor
