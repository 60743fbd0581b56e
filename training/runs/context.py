"""What every part of a run is given: where it keeps its things, and where it shows its progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.runs.loop import Batch, LoopConfig, Outcome, Task, train


def _standard_error() -> Console:
    return Console(stderr=True, width=None if sys.stderr.isatty() else 120)


@dataclass(frozen=True)
class RunContext:
    """Of one stage or method.

    Attributes:
        directory: its own; checkpoints and results go there.
        console: for progress and results.
    """

    directory: Path
    console: Console = field(default_factory=_standard_error)

    def train(self, task: Task[Batch], loop: LoopConfig, label: str, checkpoint: str = "checkpoint.pt") -> Outcome:
        """Run `task` as `loop` says, going on from file `checkpoint` of the directory; see `training.runs.loop.train`."""
        return train(task, loop, self.directory / checkpoint, label, self.console)

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line."""
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar with counts and the time left; none outside a terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            yield bar
