"""What a person sees of a training."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Display:
    """A bar with ETA and live loss on a terminal; a line now and then in a log file."""

    def __init__(self, console: Console, label: str) -> None:
        self.label = label
        self._console = console
        self._best = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=1.0, status="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def line(self, text: str) -> None:
        """Say something."""
        self._console.print(f"{self.label}: {text}", highlight=False)

    def progress(self, share: float, loss: float) -> None:
        """How much is done, and the loss of late."""
        self._bar.update(self._task, completed=share, status=f"loss {loss:.4f}{self._best}")

    def validated(self, epochs: float, value: float, best: float) -> None:
        """What the monitored metric is, and the best so far."""
        self._best = f" · validation {value:.4f} (best {best:.4f})"
        if not self._console.is_terminal:
            self.line(f"epoch {epochs:g} · validation {value:.4f} (best {best:.4f})")
