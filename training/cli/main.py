"""`allmrec-train`: from raw interactions to a bundle. The one typer app; modules of commands import what they need when
they are called, so that help and importing start at once.
"""

from __future__ import annotations

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
        except (AllmrecError, OSError) as error:
            console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as interrupt:
            console.print("interrupted. The same command goes on from the last finished stage.", highlight=False)
            raise typer.Exit(130) from interrupt


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train an A-LLMRec recommender and export it as a bundle.",
)
app.command("import")(data.import_)
app.command("inspect")(data.inspect)
app.command("training-part")(data.training_part)
app.command("demo")(data.demo)
app.command("fit")(catalogue.fit)
app.command("backbone")(catalogue.backbone)
app.command("stage1")(catalogue.stage1)
app.command("stage2")(catalogue.stage2)
app.command("export")(catalogue.export)
app.command("evaluate")(catalogue.evaluate)
app.command("results")(results.results)
app.command("experiment")(experiment.experiment)
app.command("llm2rec")(llm2rec.llm2rec)
app.command("evaluate-encoder")(llm2rec.evaluate_encoder)
app.command("tune-llm")(tune_llm.tune_llm)
app.command("pretrain-lm")(lm.pretrain_lm)
app.command("average-lm")(lm.average_lm)
app.command("evaluate-lm")(lm.evaluate_lm)
app.command("fetch-gemma")(lm.fetch_gemma)
