"""Choosing among presets within one time budget, by successive halving (Jamieson and Talwalkar, AISTATS 2016).

All presets are trained for a while, the better half is trained on, until one is left, which gets the rest of the time.
Every round has an equal share of what is left. Interrupted and started again, it goes the same way: the best figure of
a preset never falls, so those that were trained further stay ahead of those that were given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from models.backbones import Backbone
from training.backbones.config import Preset
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome

Train = Callable[[str, Preset, LoopConfig], tuple[Backbone, Outcome]]
"""Trains a preset by name, on from where it was left."""


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
            loop = loop.model_copy(update={"minutes": self.limit})
        self.backbone, self.outcome = train(name, self.preset, loop)
        return min(self.outcome.minutes, self.limit) - before

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
    while True:
        each = None if left is None else left / (_rounds(len(running)) * len(running))
        spent = sum(entries[name].train(name, each, loop, train) for name in running)
        # Without anybody to validate on there is no figure, and presets are taken in their order.
        running.sort(key=lambda name: -entries[name].outcome.best.get(loop.monitor, 0.0))
        if left is None or len(running) == 1:
            break
        left -= spent
        running = running[: math.ceil(len(running) / 2)]
    result = Result(running[0], loop.monitor, entries)
    if len(entries) > 1:
        run.console.print(result.table())
        run.say(f"backbone: {result.chosen}, {result.why}")
    return result


def _rounds(presets: int) -> int:
    """How many rounds until one is left, which has a round for itself."""
    return 1 + math.ceil(math.log2(presets))
