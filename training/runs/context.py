"""What every part of a run is given: where it keeps its things, and where it shows its progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.runs.distributed import Value, processes
from training.runs.loop import Batch, LoopConfig, Outcome, Task, train

CHECKPOINT_FILE = "checkpoint.pt"
LOG_WIDTH = 120
"""Of lines in a log file, which has no width of its own."""


class RunContext:
    """Of one stage or method.

    Args:
        directory: its own; checkpoints and results go there.
        console: for progress and results; standard error if not given.

    Attributes:
        fingerprint: of all that the run is made from; empty where nobody has it.
    """

    fingerprint: str = ""

    def __init__(self, directory: Path, console: Console | None = None) -> None:
        self.directory = directory
        if not processes().is_first:
            console = Console(quiet=True)
        self.console = console or Console(stderr=True, width=None if sys.stderr.isatty() else LOG_WIDTH)

    def train(self, task: Task[Batch], loop: LoopConfig, label: str, phase: str = "") -> Outcome:
        """Run `task` as `loop` says, going on from the checkpoint in the directory; see `training.runs.loop.train`.

        Args:
            task: what to train.
            loop: when to end, validate and save.
            label: stands before the progress bar.
            phase: name of this part, where a stage trains in several.
        """
        name = f"{phase.replace(' ', '_')}.{CHECKPOINT_FILE}" if phase else CHECKPOINT_FILE
        return train(task, loop, self.directory / name, label, self.console)

    def alone(self, work: Callable[[], Value]) -> Value:
        """What `work` returns, done once: by the first process, where there are several. All that writes is such."""
        return processes().alone(work)

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line."""
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar with counts and the time left; none outside a terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            yield bar
