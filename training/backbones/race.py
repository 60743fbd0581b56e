"""Choosing among presets within one time budget, by successive halving (Jamieson and Talwalkar, AISTATS 2016).

All presets are trained for a while, the better half is trained on, until one is left, which gets the last round for
itself. Every round has an equal share of what is left. Presets differ in what a step costs, so the better half by the
clock is not all that goes on:

- Every preset is validated at least `LOOKS` times a round, within an epoch where one is long; less often only where
  a step or a validation takes as long as that.
- Nobody is given up for being slow alone. A preset that has not ended by itself is given up when it is behind the
  better half after as many minutes and also behind one of them after as many epochs.
- A round after which one was validated fewer than `ENOUGH` times in all decides nothing.
- Before the last round the clock alone decides: one is left.

Interrupted and started again, it goes the same way: a preset is judged by what it had shown at the end of the round,
whatever was trained since.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from models.backbones import Backbone
from training.backbones.config import Preset
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome

Train = Callable[[str, Preset, LoopConfig], tuple[Backbone, Outcome]]
"""Trains a preset by name, on from where it was left."""
LOOKS = 3
"""Validations of every preset in a round, the last at its end."""
ENOUGH = 2
"""Validations, of all rounds so far, without which nobody is judged."""


@dataclass(frozen=True)
class Shown:
    """What a preset had shown by the end of a round: its validations, in order.

    Attributes:
        epochs: (n,) when they were.
        figures: (n,) the best until then.
        ended: it needs no more time.
    """

    epochs: np.ndarray
    figures: np.ndarray
    ended: bool

    @property
    def best(self) -> float:
        """Its figure; 0 without validations."""
        return float(self.figures[-1]) if len(self.figures) else 0.0

    @property
    def is_enough(self) -> bool:
        """To be judged by: of who never validates there is nothing to wait for."""
        return self.ended or not 0 < len(self.epochs) < ENOUGH

    def by(self, epochs: float) -> float:
        """The best after so many epochs; in proportion between validations, and as much as at the first before it.

        What rises fast at first would be thought less of by a line from nothing.
        """
        return float(np.interp(epochs, self.epochs, self.figures)) if len(self.epochs) else 0.0

    def is_slow_alone(self, others: Sequence[Shown]) -> bool:
        """Whether it may still come, and none of those ahead of it had got further in as many epochs."""
        if self.ended or not len(self.epochs):
            return False
        return all(other.by(self.epochs[-1]) < self.best for other in others)


@dataclass
class Entry:
    """A preset in the race.

    Attributes:
        preset: which.
        rounds: that it took part in.
        limit: minutes that it was given in them.
        outcome: how it went.
        backbone: with its best weights.
    """

    preset: Preset
    rounds: int = 0
    limit: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)
    backbone: Backbone | None = None

    def train(self, name: str, minutes: float | None, loop: LoopConfig, train: Train) -> float:
        """Train on for so many minutes, or to the end; return how many it took."""
        before = min(self.outcome.minutes, self.limit)
        self.rounds += 1
        if minutes is not None:
            self.limit += minutes
            look = min(minutes / LOOKS, loop.validate_minutes or math.inf)
            loop = loop.model_copy(update={"minutes": self.limit, "validate_minutes": look})
        self.backbone, self.outcome = train(name, self.preset, loop)
        return min(self.outcome.minutes, self.limit) - before

    def shown(self, monitor: str) -> Shown:
        """What it had shown when it had used up its limit, which may be of a round that is long over."""
        validations = [record for record in self.outcome.curve if monitor in record]
        # The limit is only seen to be reached after it was, so one validation is later.
        late = [number for number, record in enumerate(validations, 1) if record["minutes"] >= self.limit]
        if self.limit and late:
            validations = validations[: late[0]]
        epochs, figures = (np.asarray([record[key] for record in validations]) for key in ("epoch", monitor))
        return Shown(epochs, np.maximum.accumulate(figures), self.outcome.minutes < self.limit)

    @property
    def summary(self) -> dict[str, Any]:
        """For `metrics.json`."""
        preset = self.preset.model_dump(mode="json", include=set(Preset.model_fields))
        return {**self.outcome.summary, "rounds": self.rounds, "preset": preset}


@dataclass(frozen=True)
class Result:
    """How the race went.

    Attributes:
        chosen: name of the preset with the best figure.
        monitor: the metric that decided.
        entries: by name.
    """

    chosen: str
    monitor: str
    entries: Mapping[str, Entry]

    @property
    def backbone(self) -> Backbone:
        """The chosen one."""
        return self._backbone(self.chosen)

    @property
    def outcome(self) -> Outcome:
        """Of the chosen one."""
        return self.entries[self.chosen].outcome

    @property
    def others(self) -> dict[str, Backbone]:
        """Those that were not chosen, by preset."""
        return {name: self._backbone(name) for name in self.entries if name != self.chosen}

    @property
    def why(self) -> str:
        """In words."""
        if len(self.entries) == 1:
            return "the only one"
        figures = {name: entry.outcome.best.get(self.monitor, 0.0) for name, entry in self.entries.items()}
        following = max((name for name in figures if name != self.chosen), key=figures.__getitem__)
        return (
            f"best validation {self.monitor} over the full catalogue:"
            f" {figures[self.chosen]:.4f}, {following} {figures[following]:.4f}"
        )

    @property
    def summary(self) -> dict[str, Any]:
        """For `metrics.json`: that of the chosen one, and of all."""
        presets = {name: entry.summary for name, entry in self.entries.items()}
        return {"chosen": self.chosen, "why": self.why, **self.outcome.summary, "presets": presets}

    def table(self) -> Table:
        """The presets, best first."""
        table = Table("preset", "kind", "objective", *self.outcome.best, "epochs", "minutes", "ended by", "rounds")
        ordered = sorted(self.entries, key=lambda name: -self.entries[name].outcome.best.get(self.monitor, 0.0))
        for name in ordered:
            entry = self.entries[name]
            outcome, preset = entry.outcome, entry.preset
            figures = [f"{value:.4f}" for value in outcome.best.values()]
            ends = [f"{outcome.epochs:.1f}", f"{outcome.minutes:.2f}", outcome.ended_by, str(entry.rounds)]
            table.add_row(name, preset.kind, preset.objective.value, *figures, *ends)
        return table

    def _backbone(self, name: str) -> Backbone:
        backbone = self.entries[name].backbone
        if backbone is None:
            raise RuntimeError(f"preset {name} was never trained")
        return backbone


def race(presets: Mapping[str, Preset], loop: LoopConfig, train: Train, run: RunContext) -> Result:
    """Train all presets and choose the best.

    Args:
        presets: by name; one alone has all the time.
        loop: of each, but that all together have its `minutes`. Without these each is trained to its end.
        train: trains one.
        run: where the result is shown.
    """
    entries = {name: Entry(preset) for name, preset in presets.items()}
    running, left = list(presets), loop.minutes
    for rounds in range(_rounds(len(running)), 0, -1):
        each = None if left is None else left / (rounds * len(running))
        spent = sum(entries[name].train(name, each, loop, train) for name in running)
        # Without anybody to validate on there is no figure, and presets are taken in their order.
        running = _judged({name: entries[name].shown(loop.monitor) for name in running}, rounds)
        if left is None or rounds == 1:
            break
        left -= spent
    result = Result(running[0], loop.monitor, entries)
    if len(entries) > 1:
        run.console.print(result.table())
        run.say(f"backbone: {result.chosen}, {result.why}")
    return result


def _judged(shown: Mapping[str, Shown], rounds: int) -> list[str]:
    """Who goes on, best first; `rounds` are left, this one among them."""
    ordered = sorted(shown, key=lambda name: -shown[name].best)
    if rounds <= 2:
        return ordered[:1]
    if not all(each.is_enough for each in shown.values()):
        return ordered
    better = ordered[: math.ceil(len(ordered) / 2)]
    ahead = [shown[name] for name in better]
    return better + [name for name in ordered[len(better) :] if shown[name].is_slow_alone(ahead)]


def _rounds(presets: int) -> int:
    """How many rounds until one is left, which has a round for itself."""
    return 1 + math.ceil(math.log2(presets))
