"""`allmrec-train`: from raw interactions to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from transformers.utils import logging as transformers_logging
from typer.core import TyperGroup

from models.errors import AllmrecError
from training.allmrec.pipeline import Chain
from training.allmrec.recipe import Recipe, load_recipe, shipped_recipes
from training.cli.data import demo, import_
from training.cli.lm import average_lm, evaluate_lm, pretrain_lm

console = Console(stderr=True)
transformers_logging.disable_progress_bar()


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
app.command("import")(import_)
app.command("demo")(demo)

DatasetPath = Annotated[
    Path,
    typer.Argument(metavar="DATASET", help="A dataset's folder, or raw files, which are then imported first."),
]
RunPath = Annotated[
    Path | None,
    typer.Option("--out", help="The run's folder, runs/<name of the data> unless given. Finished stages are kept."),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help=f"One of {', '.join(shipped_recipes())}, or the path of a TOML file.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change a setting of the recipe. Can be given again."),
]
BundlePath = Annotated[
    Path | None, typer.Option("--bundle", help="The bundle home to publish to. bundles/<name of the run> unless given.")
]


@app.command()
def fit(
    dataset: DatasetPath,
    out: RunPath = None,
    recipe: RecipeName = "default",
    bundle: BundlePath = None,
    settings: Settings = None,
) -> None:
    """Run all stages: backbone, stage 1, stage 2, evaluation, export."""
    export(dataset, out, recipe, bundle, settings)


@app.command()
def backbone(
    dataset: DatasetPath, out: RunPath = None, recipe: RecipeName = "default", settings: Settings = None
) -> None:
    """Train the collaborative-filtering backbone."""
    _chain(dataset, recipe, settings, out).backbone  # noqa: B018


@app.command()
def stage1(
    dataset: DatasetPath,
    out: RunPath = None,
    recipe: RecipeName = "default",
    settings: Settings = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Leave the text encoder as it is.")] = False,
) -> None:
    """Align items with their text; runs what comes before, if need be."""
    frozen = ["stage1.freeze=true"] if freeze else []
    _chain(dataset, recipe, [*(settings or []), *frozen], out).aligned  # noqa: B018


@app.command()
def stage2(
    dataset: DatasetPath, out: RunPath = None, recipe: RecipeName = "default", settings: Settings = None
) -> None:
    """Align users and items with the frozen LLM; runs what comes before, if need be."""
    _chain(dataset, recipe, settings, out).contents  # noqa: B018


@app.command()
def evaluate(
    dataset: DatasetPath, out: RunPath = None, recipe: RecipeName = "default", settings: Settings = None
) -> None:
    """Compare all rankers on the held-out items; runs what comes before, if need be."""
    _chain(dataset, recipe, settings, out).evaluation  # noqa: B018


@app.command()
def export(
    dataset: DatasetPath,
    out: RunPath = None,
    recipe: RecipeName = "default",
    bundle: BundlePath = None,
    settings: Settings = None,
) -> None:
    """Publish the result as a bundle; runs what comes before, if need be."""
    chain = _chain(dataset, recipe, settings, out)
    home = bundle or Path("bundles") / chain.directory.name
    path = chain.export(home)
    console.print(f"bundle: {path}\nserve it: allmrec-serve --bundle {home}", highlight=False, soft_wrap=True)


app.command("pretrain-lm")(pretrain_lm)
app.command("average-lm")(average_lm)
app.command("evaluate-lm")(evaluate_lm)


def _chain(dataset: Path, recipe: str, settings: list[str] | None, out: Path | None) -> Chain:
    chosen: Recipe = load_recipe(recipe, settings or ())
    return Chain(dataset, chosen, out or Path("runs") / dataset.resolve().name.split(".")[0], console)
