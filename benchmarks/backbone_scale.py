"""Memory and speed of training a backbone on a generated catalogue of any size: a few steps and one validation."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import torch

from models.backbones import BACKBONES, create_backbone
from training.backbones.config import PRESETS
from training.backbones.full_ranking import FullRanking
from training.backbones.loss import WindowLoss
from training.backbones.windows import WindowBatch, Windows
from training.data.dataset import ITEMS_SCHEMA, Dataset, DatasetInfo
from training.data.splits import Holdout, SequenceSplit

TEXT_SIZE = 384
MEAN_LENGTH = 7


def measure(
    interactions: int, items: int, presets: list[str], steps: int, validation_users: int, seed: int
) -> list[dict[str, Any]]:
    """Phase by phase the peak of resident memory so far, and the time.

    Args:
        interactions: of all users together, seven a user on average.
        items: N, met by a power law.
        presets: which are trained.
        steps: of each.
        validation_users: who are validated on.
        seed: of the data.
    """
    rows: list[dict[str, Any]] = []
    torch.manual_seed(seed)
    with _phase(rows, "generate"):
        dataset = generate(interactions, items, seed)
    with _phase(rows, "split"):
        split = SequenceSplit.from_dataset(dataset)
    del dataset
    with _phase(rows, "windows"):
        windows = Windows(split.train, 50)
        batches = windows.batches(128, np.random.default_rng(seed))
    rows[-1]["what"] += f" ({len(batches):,} batches an epoch)"
    texts = torch.randn(items + 1, TEXT_SIZE) / TEXT_SIZE**0.5
    for name in presets:
        preset = PRESETS[name]
        sizes = {"num_items": items} | ({"num_users": len(split)} if BACKBONES[preset.kind][0].reads_users else {})
        backbone = create_backbone(preset.kind, sizes | preset.settings)
        if backbone.reads_texts:
            backbone.read_texts(texts, torch.from_numpy(split.catalogue.trained))
        optimizer = torch.optim.Adam(backbone.parameters(), fused=True)
        loss = WindowLoss(backbone, windows, split, preset)
        with _phase(rows, f"{name}, a step", steps):
            for number, chosen in enumerate(batches[:steps]):
                optimizer.zero_grad()
                loss(WindowBatch(chosen, (seed, 0, number))).backward()
                optimizer.step()
        with _phase(rows, f"{name}, a validation of {validation_users:,}"):
            FullRanking.of(split, Holdout.VALIDATION, validation_users).metrics(backbone.eval())
    return rows


def generate(interactions: int, items: int, seed: int) -> Dataset:
    """Users who take items by a power law, none of them for any reason."""
    rng = np.random.default_rng(seed)
    odds = 1.0 / np.arange(1, items + 1) ** 0.8
    taken = np.searchsorted(np.cumsum(odds) / odds.sum(), rng.random(interactions))
    users = np.sort(rng.integers(interactions // MEAN_LENGTH, size=interactions))
    ids = pl.Series([f"item-{number:06d}" for number in range(items)])
    frame = pl.DataFrame({"user": users, "timestamp": np.arange(interactions)})
    frame = frame.select(
        pl.format("user-{}", "user").alias("user_id"), ids[np.minimum(taken, items - 1)].alias("item_id"), "timestamp"
    )
    columns = {"item_id": ids, "title": ids, "description": [""] * items, "categories": [[]] * items}
    return Dataset(
        DatasetInfo(name="generated", format="none"), frame, pl.DataFrame(columns, schema=dict(ITEMS_SCHEMA))
    )


@contextmanager
def _phase(rows: list[dict[str, Any]], what: str, times: int = 1) -> Iterator[None]:
    started, cpu = time.perf_counter(), time.process_time()
    yield
    rows.append(
        {
            "what": what,
            "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "s": round((time.perf_counter() - started) / times, 3),
            "cpu s": round((time.process_time() - cpu) / times, 3),
        }
    )
