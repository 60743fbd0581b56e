"""The benchmark of titles asks as the blend does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from benchmarks.titles import Readers, measure
from models.engines.transformers import TransformersEngineConfig
from tests.training.ground import write_shop
from training.cli.catalogue import make_pipeline


def test_every_user_is_asked_about_as_many_titles(tmp_path: Path) -> None:
    """Rows by length: the shorter titles are, the fewer tokens; all are finite times."""
    write_shop(tmp_path)
    dataset = make_pipeline(tmp_path / "shop", "demo", None, tmp_path / "run").dataset_path
    config = TransformersEngineConfig(workers=1)
    rows = asyncio.run(measure(config, Readers(dataset, 0), [16, 4], users=3, candidates=5))
    assert [row["tokens a title"] for row in rows] == [16, 4]
    assert rows[0]["tokens of candidates"] >= rows[1]["tokens of candidates"] > 5
    assert all(np.isfinite(row["p50_s"]) and row["p90_s"] >= row["p50_s"] for row in rows)
