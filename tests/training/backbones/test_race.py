"""Choosing among presets: rounds, the budget, the choice, and that an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from models.backbones import Backbone, create_backbone
from training.backbones.config import PRESETS, Preset
from training.backbones.race import race
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome


class Track:
    """Presets that reach their figure at once and use up the time they are given, unless they end sooner."""

    def __init__(self, figures: dict[str, float], ends: dict[str, float] | None = None) -> None:
        self.figures, self.ends = figures, ends or {}
        self.calls: list[tuple[str, float | None]] = []
        self.minutes: dict[str, float] = {}
        self.backbone = create_backbone("sasrec", {"num_items": 3})

    def train(self, name: str, _preset: Preset, loop: LoopConfig) -> tuple[Backbone, Outcome]:
        self.calls.append((name, loop.minutes))
        limit = self.ends.get(name, float("inf"))
        # As a checkpoint does: what was trained before counts.
        spent = max(self.minutes.get(name, 0.0), min(loop.minutes or limit, limit))
        self.minutes[name] = spent
        ended_by = "patience" if spent == limit else "minutes"
        return self.backbone, Outcome(minutes=spent, ended_by=ended_by, best={"ndcg@10": self.figures[name]})


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    return RunContext(tmp_path, Console(record=True, width=120))


def presets(*names: str) -> dict[str, Preset]:
    return {name: Preset() for name in names}


def test_the_better_half_goes_on_with_an_equal_share_a_round(run: RunContext) -> None:
    """Twelve minutes: three rounds of four, shared by four, two and one; minutes are those since the beginning."""
    track = Track({"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2})
    result = race(presets("a", "b", "c", "d"), LoopConfig(minutes=12), track.train, run)
    assert track.calls == [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("b", 3), ("c", 3), ("b", 7)]
    assert result.chosen == "b"
    assert sum(track.minutes.values()) == 12
    assert {name: entry.rounds for name, entry in result.entries.items()} == {"a": 1, "b": 3, "c": 2, "d": 1}


def test_time_that_one_does_not_need_is_for_the_others(run: RunContext) -> None:
    """b ends after one of its three minutes, so the last round has two more than its four."""
    track = Track({"a": 0.2, "b": 0.1}, ends={"b": 1.0})
    race(presets("a", "b"), LoopConfig(minutes=12), track.train, run)
    assert track.calls == [("a", 3), ("b", 3), ("a", 11)]


def test_it_goes_the_same_way_again(run: RunContext) -> None:
    """From the checkpoints of before, which hold more than the early rounds had."""
    track = Track({"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.2}, ends={"c": 2.0})
    loop = LoopConfig(minutes=12)
    first = race(presets("a", "b", "c", "d"), loop, track.train, run)
    calls, track.calls = track.calls, []
    second = race(presets("a", "b", "c", "d"), loop, track.train, run)
    assert track.calls == calls
    assert second.summary == first.summary


def test_without_a_limit_of_minutes_each_is_trained_to_its_end(run: RunContext) -> None:
    """One round, and the best is kept."""
    track = Track({"a": 0.1, "b": 0.4, "c": 0.3}, ends={"a": 5, "b": 6, "c": 7})
    result = race(presets("a", "b", "c"), LoopConfig(epochs=3), track.train, run)
    assert track.calls == [("a", None), ("b", None), ("c", None)]
    assert result.chosen == "b"


def test_one_alone_has_all_the_time_and_nothing_is_shown(run: RunContext) -> None:
    """As with one fixed backbone."""
    track = Track({"a": 0.1})
    result = race(presets("a"), LoopConfig(minutes=12), track.train, run)
    assert track.calls == [("a", 12)]
    assert (result.chosen, result.why, result.others) == ("a", "the only one", {})
    assert not run.console.export_text()


def test_what_was_chosen_and_why_is_said(run: RunContext) -> None:
    """In the log, and for metrics.json with the figures of those that were given up."""
    track = Track({"hybrid_softmax": 0.1, "sasrec_sampled": 0.25})
    chosen = {name: PRESETS[name] for name in track.figures}
    result = race(chosen, LoopConfig(minutes=2), track.train, run)
    why = "best validation ndcg@10 over the full catalogue: 0.2500, hybrid_softmax 0.1000"
    assert result.summary["chosen"] == "sasrec_sampled"
    assert result.summary["why"] == why
    assert result.summary["presets"]["hybrid_softmax"]["validation"] == {"ndcg@10": 0.1}
    assert result.summary["presets"]["hybrid_softmax"]["preset"]["kind"] == "hybrid"
    assert set(result.others) == {"hybrid_softmax"}
    lines = run.console.export_text().splitlines()
    assert lines[-1] == f"backbone: sasrec_sampled, {why}"
    places = [next(i for i, line in enumerate(lines) if name in line) for name in ("sasrec_sampled", "hybrid_softmax")]
    assert places == sorted(places)
