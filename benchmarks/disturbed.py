"""An evaluation on a machine that others use too: as it is alone, and beside a process that keeps a core busy."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

BUSY = "while True: pass"


def measure(dataset: Path, recipe: str, run: Path, settings: list[str], rounds: int) -> list[dict[str, Any]]:
    """Evaluate a finished run alone and disturbed, in turns, each time with other candidates.

    Args:
        dataset, recipe, run: of the run, as `allmrec-train evaluate` takes them.
        settings: of the evaluation, KEY=VALUE.
        rounds: evaluations of each kind.
    """
    seconds: dict[str, list[float]] = {"alone": [], "beside a busy process": []}
    evaluate(dataset, recipe, run, [*settings, "seed=999"])  # trains what is missing
    for round_ in range(rounds):
        own = [*settings, f"seed={1000 + round_}"]
        seconds["alone"].append(evaluate(dataset, recipe, run, own))
        with busy_process():
            again = [*settings, f"seed={2000 + round_}"]
            seconds["beside a busy process"].append(evaluate(dataset, recipe, run, again))
    alone = median(seconds["alone"])
    return [
        {
            "evaluation": name,
            "median_s": round(median(times), 1),
            "fastest_s": round(min(times), 1),
            "slowest_s": round(max(times), 1),
            "times_alone": round(median(times) / alone, 2),
        }
        for name, times in seconds.items()
    ]


def evaluate(dataset: Path, recipe: str, run: Path, settings: list[str]) -> float:
    """Seconds that the command takes."""
    options = [option for setting in settings for option in ("--set", f"evaluation.{setting}")]
    command = [sys.executable, "-m", "training.cli", "evaluate", str(dataset)]
    started = time.monotonic()
    command += ["--recipe", recipe, "--out", str(run), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.monotonic() - started


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that computes all the time."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])  # noqa: S603
    try:
        yield
    finally:
        process.kill()
        process.wait()
