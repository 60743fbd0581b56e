"""Vectors by id, as other libraries leave them: npz, safetensors or Parquet."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open

from models.errors import ConfigError

IDS, VECTORS = "ids", "vectors"
WANTED = f"'{IDS}' are n strings or whole numbers, '{VECTORS}' n rows of as many numbers each, in 16 to 64 bits"


@dataclass(frozen=True)
class Vectors:
    """Vectors (n, d) float32 and whose they are.

    Attributes:
        ids: n different ids.
        vectors: (n, d), all finite.
    """

    ids: Sequence[str]
    vectors: np.ndarray

    def rows_for(self, wanted: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(m, d) the vectors of m ids, zeros where there is none, and (m,) bool whether there is one."""
        row_of = {each: row for row, each in enumerate(self.ids)}
        rows = np.asarray([row_of.get(each, -1) for each in wanted], dtype=np.int64)
        found = rows >= 0
        return np.where(found[:, None], self.vectors[rows], np.float32(0)), found


def read_vectors(path: Path) -> Vectors:
    """Read a file of vectors.

    Args:
        path: an `.npz` with arrays `ids` (n,) and `vectors` (n, d); a `.parquet` with columns `ids` and `vectors`, a
            list a row; or a `.safetensors` with a tensor `vectors` and, in its metadata, `ids` as a JSON list.

    Raises:
        ConfigError: the file cannot be read, or ids and vectors do not fit; names the file.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: vectors are read from {', '.join(_READERS)}")
    try:
        ids, vectors = reader(path)
    except KeyError as error:
        raise ConfigError(f"{path}: it has no {error}: name them '{IDS}' and '{VECTORS}'") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read: {_in_a_line(error)}; {WANTED}") from error
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{path}: cannot be read: {_in_a_line(error)}; {WANTED}") from error
    if not isinstance(ids, list) or not all(isinstance(each, str | int) for each in ids):
        raise ConfigError(f"{path}: '{IDS}' are not names in one row; {WANTED}")
    if vectors.dtype.kind not in "fiub":
        raise ConfigError(f"{path}: vectors are of {vectors.dtype}; {WANTED}")
    names = [str(each) for each in ids]
    if vectors.ndim != 2 or len(vectors) != len(names) or not vectors.size:
        raise ConfigError(f"{path}: {len(names)} ids do not fit vectors of shape {tuple(vectors.shape)}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: an id stands there twice")
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{path}: a vector is not finite in 32 bits")
    if not numbers.any():
        raise ConfigError(f"{path}: all vectors are zeros")
    return Vectors(names, numbers)


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _npz(path: Path) -> tuple[Sequence[object], np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return content[IDS].tolist(), content[VECTORS]


def _parquet(path: Path) -> tuple[Sequence[object], np.ndarray]:
    frame = pl.read_parquet(path)
    for name in (IDS, VECTORS):
        if name not in frame.columns:
            raise KeyError(name)
    return frame[IDS].to_list(), np.asarray(frame[VECTORS].to_list(), dtype=np.float32)


def _safetensors(path: Path) -> tuple[Sequence[object], np.ndarray]:
    with safe_open(path, framework="numpy") as content:
        ids = (content.metadata() or {})[IDS]
        if VECTORS not in content.keys():  # noqa: SIM118 - a reader, not a mapping
            raise KeyError(VECTORS)
        return json.loads(ids), content.get_tensor(VECTORS)


_READERS: dict[str, Callable[[Path], tuple[Sequence[object], np.ndarray]]] = {
    ".npz": _npz,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
}
