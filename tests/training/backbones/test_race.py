"""Choosing among presets: rounds, the budget, the choice, and that an interruption changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.backbones import Backbone, create_backbone
from training.backbones.config import PRESETS, Preset
from training.backbones.race import Shown, race
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome, Record


class Track:
    """Presets that use up the time they are given, unless they end sooner, and are validated as often as asked.

    Args:
        figures: of each, by its epochs so far; a number is reached at once.
        ends: minutes after which one ends by itself.
        speeds: epochs a minute, 1 if not given.
        looks: whether a step is short enough to be looked into.
    """

    def __init__(
        self,
        figures: Mapping[str, float | Callable[[float], float]],
        ends: dict[str, float] | None = None,
        speeds: dict[str, float] | None = None,
        looks: bool = True,
    ) -> None:
        self.figures, self.ends, self.speeds, self.looks = figures, ends or {}, speeds or {}, looks
        self.calls: list[tuple[str, float | None]] = []
        self.minutes: dict[str, float] = {}
        self.curves: dict[str, list[Record]] = {}
        self.backbone = create_backbone("sasrec", {"num_items": 3})

    def train(self, name: str, _preset: Preset, loop: LoopConfig) -> tuple[Backbone, Outcome]:
        self.calls.append((name, loop.minutes))
        limit = self.ends.get(name, float("inf"))
        # As a checkpoint does: what was trained before counts.
        before = self.minutes.get(name, 0.0)
        spent = max(before, min(loop.minutes or limit, limit))
        look = loop.validate_minutes if self.looks and loop.validate_minutes else spent
        validated = [before + look * number for number in range(1, 4) if before + look * number < spent - 1e-9]
        curve = self.curves.setdefault(name, [])
        curve += [self._validation(name, minutes) for minutes in [*validated, spent][: 4 if spent > before else 0]]
        self.minutes[name] = spent
        best = {"ndcg@10": max(record["ndcg@10"] for record in curve)}
        ended_by = "patience" if spent == limit else "minutes"
        return self.backbone, Outcome(minutes=spent, ended_by=ended_by, best=best, curve=list(curve))

    def _validation(self, name: str, minutes: float) -> Record:
        figure, epochs = self.figures[name], minutes * self.speeds.get(name, 1.0)
        return {
            "minutes": minutes,
            "epoch": epochs,
            "ndcg@10": figure(epochs) if callable(figure) else figure,
        }


def rising(by_epoch: float, to: float) -> Callable[[float], float]:
    """A figure that rises by so much an epoch, up to a bound."""
    return lambda epochs: min(by_epoch * epochs, to)


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


def test_everybody_is_validated_three_times_a_round(run: RunContext) -> None:
    """Eighteen minutes of three presets: shares of two minutes, then of three for two, then the last six."""
    track = Track({"a": 0.3, "b": 0.2, "c": 0.1})
    result = race(presets("a", "b", "c"), LoopConfig(minutes=18, validate_every=2), track.train, run)
    validated = {name: [record["minutes"] for record in entry.outcome.curve] for name, entry in result.entries.items()}
    assert validated["c"] == pytest.approx([2 / 3, 4 / 3, 2])
    assert validated["b"] == pytest.approx([2 / 3, 4 / 3, 2, 3, 4, 5])
    assert validated["a"] == pytest.approx([2 / 3, 4 / 3, 2, 3, 4, 5, 7, 9, 11])


def slow_one(by_epoch: float, ends: dict[str, float] | None = None) -> Track:
    """Two quick presets of two epochs a minute, and one of .2 that rises by so much an epoch."""
    figures = {"a": rising(0.1, to=0.3), "b": rising(0.1, to=0.25), "slow": rising(by_epoch, to=1.0)}
    return Track(figures, ends, speeds={"a": 2.0, "b": 2.0, "slow": 0.2})


def test_who_is_slow_alone_goes_on(run: RunContext) -> None:
    """After two minutes, .4 epochs, it has .24; others up to .3, and .13 at their first look, after 1.3. It wins."""
    track = slow_one(0.6)
    result = race(presets("a", "b", "slow"), LoopConfig(minutes=18), track.train, run)
    first, second = [("a", 2), ("b", 2), ("slow", 2)], [("a", 4), ("b", 4), ("slow", 4)]
    assert track.calls == [*first, *second, ("slow", 10)]
    assert result.chosen == "slow"


def test_before_the_last_round_the_clock_decides(run: RunContext) -> None:
    """A slow one that is ahead by epochs, with .14 of .4, goes on; after four minutes, with .28, it has lost."""
    track = slow_one(0.35)
    result = race(presets("a", "b", "slow"), LoopConfig(minutes=18), track.train, run)
    assert [name for name, _ in track.calls] == ["a", "b", "slow", "a", "b", "slow", "a"]
    assert result.chosen == "a"


@pytest.mark.parametrize(("by_epoch", "ends"), [(0.05, {}), (0.6, {"slow": 1.9})])
def test_who_is_behind_by_epochs_too_or_has_ended_is_given_up(
    by_epoch: float, ends: dict[str, float], run: RunContext
) -> None:
    """Less an epoch than the others, or ended by patience: more time would not help."""
    track = slow_one(by_epoch, ends)
    race(presets("a", "b", "slow"), LoopConfig(minutes=18), track.train, run)
    assert [name for name, _ in track.calls] == ["a", "b", "slow", "a", "b", "a"]


def test_one_validation_decides_nothing(run: RunContext) -> None:
    """A step takes as long as the share: the first round leaves all three, the second has seen two of each."""
    track = Track({"a": 0.1, "b": 0.3, "c": 0.2}, looks=False)
    race(presets("a", "b", "c"), LoopConfig(minutes=18), track.train, run)
    assert [name for name, _ in track.calls] == ["a", "b", "c", "b", "c", "a", "b"]


@pytest.mark.parametrize("by_epoch", [0.2, 0.6])
def test_a_slow_one_goes_on_again(by_epoch: float, run: RunContext) -> None:
    """Started again, the race judges by what had been shown then, not by what is known since."""
    track = slow_one(by_epoch)
    loop = LoopConfig(minutes=18)
    first = race(presets("a", "b", "slow"), loop, track.train, run)
    calls, track.calls = track.calls, []
    assert race(presets("a", "b", "slow"), loop, track.train, run).summary == first.summary
    assert track.calls == calls


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


def test_what_rises_fast_at_first_is_not_thought_less_of() -> None:
    """Before its first validation a quick preset counts as what it had then: a line from nothing flatters slow ones."""
    quick = Shown(np.asarray([10.0, 20.0]), np.asarray([0.30, 0.32]), ended=False)
    worse, better = (Shown(np.asarray([1.0, 2.0]), np.asarray([0.05, figure]), ended=False) for figure in (0.1, 0.31))
    assert not worse.is_slow_alone([quick])
    assert better.is_slow_alone([quick])
    assert quick.by(15.0) == pytest.approx(0.31)
