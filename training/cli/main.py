"""`allmrec-train`: from raw interactions to a bundle. The one typer app; modules of commands import what they need when
they are called, so that help and importing start at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from models.errors import AllmrecError
from training.cli import catalogue, data, experiment, llm2rec, lm, results, tune_llm

console = Console(stderr=True)


class Commands(TyperGroup):
    """Commands whose expected errors are one line, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; exit with 2 on an error that was foreseen, with 130 on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            console.print("interrupted. The same command goes on from what is saved.", highlight=False)
            raise typer.Exit(130) from interrupt
        except Exception as error:
            foreseen = _in_words(error)
            if foreseen is None:
                raise
            console.print(f"error: {foreseen}", style="bold red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error


def _in_words(error: BaseException) -> str | None:
    """What is told of an error that was foreseen, of several at once the first; None of another."""
    if isinstance(error, BaseExceptionGroup):
        return next((told for each in error.exceptions if (told := _in_words(each))), None)
    if isinstance(error, AllmrecError | OSError):
        return str(error)
    # Libraries that write files raise what they like when a disk is full.
    if (
        type(error).__name__ == "SafetensorError"
        or isinstance(error, sqlite3.Error)
        or "inline_container" in str(error)
    ):
        return f"a file cannot be written or read, see whether the disk is full: {str(error).splitlines()[0]}"
    return None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train an A-LLMRec recommender and export it as a bundle.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "import": data.import_,
    "inspect": data.inspect,
    "training-part": data.training_part,
    "demo": data.demo,
    "fit": catalogue.fit,
    "backbone": catalogue.backbone,
    "stage1": catalogue.stage1,
    "stage2": catalogue.stage2,
    "export": catalogue.export,
    "evaluate": catalogue.evaluate,
    "results": results.results,
    "experiment": experiment.experiment,
    "llm2rec": llm2rec.llm2rec,
    "evaluate-encoder": llm2rec.evaluate_encoder,
    "tune-llm": tune_llm.tune_llm,
    "pretrain-lm": lm.pretrain_lm,
    "average-lm": lm.average_lm,
    "evaluate-lm": lm.evaluate_lm,
    "fetch-gemma": lm.fetch_gemma,
}
for name, command in COMMANDS.items():
    # What a command raises is for who calls it from Python.
    app.command(name, help=(command.__doc__ or "").partition("Raises:")[0])(command)
