"""The files of an LLM, and its identity: a digest of all that is stored, whatever it is loaded as."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import cached_file

from models.errors import ConfigError

NO_IDENTITY = frozenset(
    {
        "_name_or_path",
        "_model_name_or_path",
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Keys of `config.json` that do not change what an LLM says."""


def fingerprint_checkpoint(name: str) -> str:
    """`fingerprint` of the files of an LLM, by a path or a hub name. Files that have not changed are read once.

    Raises:
        ConfigError: there are no weights.
    """
    files = [Path(file) for file in _files(name)]
    config = cached_file(name, "config.json", _raise_exceptions_for_missing_entries=False)
    if config is None or not files:
        raise ConfigError(f"LLM '{name}': no weights found, neither safetensors nor pytorch_model.bin")
    stated = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in (Path(config), *files)]
    return _of_files(tuple(stated))


@lru_cache(maxsize=16)
def _of_files(stated: tuple[tuple[str, int, int], ...]) -> str:
    config, *files = (Path(path) for path, _, _ in stated)
    return fingerprint(json.loads(config.read_text(encoding="utf-8")), _tensors(files))


def fingerprint(config: Mapping[str, Any], weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over a config and all weights by name, in whatever order they come.

    Args:
        config: the content of `config.json`.
        weights: names and tensors, as stored.
    """
    identity = {key: value for key, value in config.items() if key not in NO_IDENTITY}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
    for name, of_tensor in sorted((name, _digest(tensor)) for name, tensor in weights):
        digest.update(name.encode() + of_tensor)
    return digest.hexdigest()


def _digest(tensor: torch.Tensor) -> bytes:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _tensors(files: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118
                    yield key, tensors.get_tensor(key)
        else:
            yield from torch.load(file, map_location="cpu", mmap=True, weights_only=True).items()


def _files(name: str) -> Iterator[str]:
    """The weight files in the format that is loaded, whole or in shards."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        for file in (whole, f"{whole}.index.json"):
            path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
            if path is None:
                continue
            if path.endswith(".index.json"):
                shards = json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"]
                yield from (cached_file(name, shard) for shard in sorted(set(shards.values())))
            else:
                yield path
            return
