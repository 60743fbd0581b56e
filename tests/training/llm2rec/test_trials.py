"""What vectors are worth: how a recommender is given them, and how it is reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.errors import ConfigError
from tests.tiny import tiny_split
from tests.tiny_encoder import write_tiny_encoder
from training.data.splits import Holdout
from training.llm2rec.compare import compare, read_trial_config
from training.llm2rec.corpus import Domain
from training.llm2rec.report import make_row, markdown, write_report
from training.llm2rec.trials import TrialConfig, Trials, Use, VectorTrainer, labelled
from training.runs.context import RunContext


@pytest.fixture
def config() -> TrialConfig:
    """Small and quick."""
    return read_trial_config(["embedding_size=8", "epochs=2", "validate_every=1", "max_text_tokens=16"])


@pytest.mark.parametrize("use", list(Use))
def test_items_are_their_texts_with_or_without_ids(use: Use, config: TrialConfig, tmp_path: Path) -> None:
    """`A q` for all, or `id + A q` for those with training interactions."""
    split = tiny_split()
    vectors = torch.randn(31, 5)
    vectors[0] = 0.0
    trainer = VectorTrainer(split, config.backbone, RunContext(tmp_path), vectors, use)
    backbone = trainer.create(config.backbone).eval()
    with torch.no_grad():
        by_text = backbone.adapter(vectors)
        ids = backbone.items.weight * torch.from_numpy(split.catalogue.trained)[:, None]
        expected = by_text + ids if use is Use.HYBRID else by_text
    torch.testing.assert_close(backbone.item_vectors.detach(), expected)


def test_trials_are_kept(config: TrialConfig, tmp_path: Path) -> None:
    """The same question has the same answer without training; another encoder under the same label is tried anew."""
    words = [f"title {number}".split()[1] for number in range(1, 31)] + ["title"]
    first = write_tiny_encoder(tmp_path / "a", words)
    second = write_tiny_encoder(tmp_path / "b", words, seed=1)
    trials = Trials(Domain("tiny", tiny_split()), "data", config, tmp_path / "trials")
    ranks = trials.ranks("one", first, Use.ADAPTER)
    stamp = (tmp_path / "trials" / "one" / "adapter" / "done").stat().st_mtime_ns
    again = trials.ranks("one", first, Use.ADAPTER)
    assert (tmp_path / "trials" / "one" / "adapter" / "done").stat().st_mtime_ns == stamp
    assert np.array_equal(ranks[Holdout.TEST], again[Holdout.TEST])
    assert ranks[Holdout.TEST].min() >= 1
    assert len(ranks[Holdout.TEST]) == len(trials.groups(Holdout.TEST)["cold"]) == 40
    other = trials.ranks("one", second, Use.ADAPTER)
    assert not np.array_equal(ranks[Holdout.TEST], other[Holdout.TEST])


def test_rows_are_worked_out_from_ranks(tmp_path: Path) -> None:
    """Two users at ranks 1 and 15 against 2 and 30; NDCG@10 is 1 / log2(1 + rank) within ten."""
    ranks = {holdout: np.array([1, 15]) for holdout in Holdout}
    first = {holdout: np.array([2, 30]) for holdout in Holdout}
    names = {"dataset": "d", "use": "adapter", "in_domain": None}
    rows = [
        make_row(first, None, np.array([False, False]), {**names, "encoder": "a"}),
        make_row(ranks, first, np.array([False, True]), {**names, "encoder": "b"}),
    ]
    assert rows[0].metrics["ndcg@10"].mean == pytest.approx(0.5 / np.log2(3))
    assert rows[1].metrics["recall@10"].mean == 0.5
    assert rows[1].metrics["recall@20"].mean == 1.0
    assert rows[1].metrics["ndcg@20"].mean == pytest.approx((1 + 1 / np.log2(16)) / 2)
    assert rows[1].lead["ndcg@10"].mean == pytest.approx((1 - 1 / np.log2(3)) / 2)
    assert (rows[0].cold, rows[1].cold.mean, rows[0].lead) == (None, 0.0, {})
    text = markdown(rows)
    assert "| b * |" in text
    assert "| a |" in text
    write_report(rows, {"seed": 0}, tmp_path)
    assert json.loads((tmp_path / "encoders.json").read_text())["rows"][1]["users"] == 2


def test_encoders_are_compared_on_every_catalogue(config: TrialConfig, tmp_path: Path) -> None:
    """In every use asked for; the first has no lead on itself."""
    words = [str(number) for number in range(1, 31)] + ["title"]
    encoders = {name: write_tiny_encoder(tmp_path / name, words, seed=seed) for seed, name in enumerate("ab")}
    domains = [Domain("x", tiny_split()), Domain("y", tiny_split(seed=3))]
    path = compare(domains, encoders, [Use.ADAPTER], config, tmp_path / "out")
    rows = json.loads(path.with_suffix(".json").read_text())["rows"]
    assert [(row["dataset"], row["encoder"], bool(row["lead"])) for row in rows] == [
        ("x", "a", False),
        ("x", "b", True),
        ("y", "a", False),
        ("y", "b", True),
    ]


def test_labels_and_settings() -> None:
    """A folder `encoder` is called as what holds it; a setting that is none is refused."""
    assert labelled(["embedded", "runs/x/csft/encoder", "best=runs/y"]) == {
        "embedded": "embedded",
        "csft": "runs/x/csft/encoder",
        "best": "runs/y",
    }
    with pytest.raises(ConfigError, match="sheets"):
        read_trial_config(["sheets=1"])
