"""How an import scales: time and memory over rows, on generated clicks that are as long-tailed as real ones."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training.data.dataset import Dataset
from training.data.importing.importer import ImportConfig, prepare

CHUNK = 2_000_000
ROWS_A_USER = 50
GIB = 1 << 30


def measure(sizes: list[int], items: int, seed: int) -> Iterator[dict[str, Any]]:
    """Import tables of `sizes` rows, each in a process of its own, so that each has a peak of its own."""
    context = multiprocessing.get_context("spawn")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), size, items, seed)
            with context.Pool(1) as pool:
                yield pool.apply(import_once, (Path(folder), size))


def generate(folder: Path, rows: int, items: int, seed: int) -> None:
    """Write `clicks.csv`, in order of time, and `items.csv`."""
    rng = np.random.default_rng(seed)
    names = pl.DataFrame({"item_id": np.arange(items), "title": [f"Item {number}" for number in range(items)]})
    names.write_csv(folder / "items.csv")
    users = max(rows // ROWS_A_USER, 1)
    with (folder / "clicks.csv").open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            chunk = pl.DataFrame(
                {
                    "user_id": rng.integers(users, size=count),
                    "item_id": (items * rng.random(count) ** 3).astype(np.int64),
                    "rating": rng.integers(1, 6, size=count),
                    "timestamp": 1_500_000_000 + (start + np.arange(count)) // 4,
                }
            )
            chunk.write_csv(file, include_header=start == 0)


def import_once(folder: Path, rows: int) -> dict[str, Any]:
    """Import, save, and say what it took."""
    started, before = time.monotonic(), time.process_time()
    dataset: Dataset = prepare(ImportConfig(sources=(folder,))).run()[0]
    read = time.monotonic()
    dataset.save(folder / "dataset")
    tally = dataset.info.interactions
    if not tally.read == tally.kept == rows:
        raise ValueError(f"{tally.read} rows were read and {tally.kept} kept of {rows}")
    wall, processor = time.monotonic() - started, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": rows,
        "file_gib": round((folder / "clicks.csv").stat().st_size / GIB, 2),
        "read_s": round(read - started, 1),
        "save_s": round(wall - (read - started), 1),
        "cpu_s": round(processor, 1),
        "rows_a_cpu_second": round(rows / processor),
        "peak_gib": round(peak / GIB, 2),
    }
