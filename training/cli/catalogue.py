"""Commands that train, publish and evaluate on one catalogue."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from training.allmrec.recipes import shipped_recipes
from training.data.importing.source import source_name

if TYPE_CHECKING:
    from training.allmrec.pipeline import Pipeline

# Of several processes (`torchrun`) the first alone shows anything.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")

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
RefitFlag = Annotated[
    bool | None,
    typer.Option(
        "--refit/--no-refit",
        help="Export what was fitted again on all interactions, or what is evaluated; as the recipe says unless given.",
    ),
]
BundlePath = Annotated[
    Path | None, typer.Option("--bundle", help="The bundle home to publish to. bundles/<name of the run> unless given.")
]


def fit(
    dataset: DatasetPath,
    out: RunPath = None,
    recipe: RecipeName = "default",
    bundle: BundlePath = None,
    settings: Settings = None,
    refit: RefitFlag = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Evaluate once the bundle is published.")
    ] = True,
) -> None:
    """Run all stages: backbone, stage 1, stage 2, export, evaluation. The bundle is there before the evaluation."""
    pipeline = make_pipeline(dataset, recipe, _with_refit(settings, refit), out)
    if not evaluate:
        pipeline.afterwards = ("export",)
    _publish(pipeline, bundle)
    if evaluate and pipeline.evaluated_users:
        evaluate_pipeline(pipeline)
    elif evaluate:
        console.print("nobody can be evaluated, so there are no figures", highlight=False)


def backbone(
    dataset: DatasetPath, out: RunPath = None, recipe: RecipeName = "default", settings: Settings = None
) -> None:
    """Train the collaborative-filtering backbone."""
    make_pipeline(dataset, recipe, settings, out).backbone  # noqa: B018


def stage1(
    dataset: DatasetPath,
    out: RunPath = None,
    recipe: RecipeName = "default",
    settings: Settings = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Leave the text encoder as it is.")] = False,
) -> None:
    """Align items with their text; runs what comes before, if need be."""
    frozen = ["stage1.freeze=true"] if freeze else []
    make_pipeline(dataset, recipe, [*(settings or []), *frozen], out).aligned  # noqa: B018


def stage2(
    dataset: DatasetPath, out: RunPath = None, recipe: RecipeName = "default", settings: Settings = None
) -> None:
    """Align users and items with the frozen LLM; runs what comes before, if need be."""
    make_pipeline(dataset, recipe, settings, out).model  # noqa: B018


def export(
    dataset: DatasetPath,
    out: RunPath = None,
    recipe: RecipeName = "default",
    bundle: BundlePath = None,
    settings: Settings = None,
    refit: RefitFlag = None,
) -> None:
    """Publish the result as a bundle; runs what comes before, if need be."""
    pipeline = make_pipeline(dataset, recipe, _with_refit(settings, refit), out)
    pipeline.afterwards = ("export",)
    _publish(pipeline, bundle)


def evaluate(
    dataset: DatasetPath,
    out: RunPath = None,
    recipe: RecipeName = "default",
    settings: Settings = None,
    time_split: Annotated[
        bool,
        typer.Option(
            "--time-split",
            help="Split at one moment for all; trains all stages on what came before, in <out>/time-split.",
        ),
    ] = False,
) -> None:
    """Compare all rankers on the held-out items, or show the last comparison; runs what comes before, if need be."""
    if time_split:
        out = (out or Path("runs") / run_name(dataset)) / "time-split"
    evaluate_pipeline(make_pipeline(dataset, recipe, settings, out, by_time=time_split))


def _with_refit(settings: list[str] | None, refit: bool | None) -> list[str]:
    return [*(settings or []), *([] if refit is None else [f"refit={str(refit).lower()}"])]


def _publish(pipeline: Pipeline, bundle: Path | None) -> None:
    home = bundle or Path("bundles") / pipeline.directory.name
    path = pipeline.export(home)
    beside = Path(sys.argv[0]).with_name("allmrec-serve")
    serve = beside if beside.exists() else "allmrec-serve"
    console.print(f"bundle: {path}\nserve it: {serve} --bundle {home}", highlight=False, soft_wrap=True)


def evaluate_pipeline(pipeline: Pipeline) -> None:
    """Compare all rankers that there are, or show the last comparison."""
    from training import baselines  # noqa: PLC0415
    from training.evaluation.methods import find_methods  # noqa: PLC0415

    pipeline.evaluate(find_methods(baselines))


def make_pipeline(
    dataset: Path, recipe: str, settings: list[str] | None, out: Path | None, *, by_time: bool = False
) -> Pipeline:
    """The stages of a recipe on a dataset, in the folder `out`.

    Raises:
        ConfigError: the recipe is wrong, or names a device that is not there; another process is at work in `out`.
    """
    # Seconds of imports that neither help nor importing data needs.
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    from models.devices import check_devices  # noqa: PLC0415
    from training.allmrec.pipeline import Pipeline  # noqa: PLC0415
    from training.allmrec.recipe import load_recipe  # noqa: PLC0415
    from training.runs.occupied import occupy  # noqa: PLC0415 - it needs torch

    transformers_logging.disable_progress_bar()
    chosen = load_recipe(recipe, settings or ())
    check_devices(chosen.devices)
    directory = out or Path("runs") / run_name(dataset)
    if dataset.exists():
        occupy(directory)
    return Pipeline(dataset, chosen, directory, console, by_time=by_time)


def run_name(dataset: Path) -> str:
    """What runs on `dataset` are called."""
    return source_name(dataset)


def check_names(datasets: Sequence[Path]) -> None:
    """Refuse several datasets in one command whose runs would be called the same, as those of one given twice.

    Raises:
        ConfigError: names two of them.
    """
    from models.errors import ConfigError  # noqa: PLC0415

    named: dict[str, Path] = {}
    for dataset in datasets:
        other = named.setdefault(run_name(dataset), dataset)
        if other is not dataset:
            raise ConfigError(
                f"{other} and {dataset} are both called '{run_name(dataset)}', and would share a folder:"
                " rename one, or give each a command and an --out of its own"
            )
