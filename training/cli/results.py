"""The command that makes the tables which decide: several seeds on several datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.cli.catalogue import (
    RecipeName,
    Settings,
    check_names,
    console,
    evaluate_pipeline,
    make_pipeline,
    run_name,
)


def results(
    datasets: Annotated[
        list[Path], typer.Argument(metavar="DATASET...", help="Datasets' folders, or raw files, imported first.")
    ],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many; each changes everything that is random.")] = 5,
    runs: Annotated[Path, typer.Option("--runs", help="Where fits are kept: <name of the data>-seed<k>.")] = Path(
        "runs"
    ),
    out: Annotated[Path, typer.Option("--out", help="The folder of the tables.")] = Path("runs/results"),
    recipe: RecipeName = "default",
    settings: Settings = None,
) -> None:
    """Fit and evaluate with several seeds; means and intervals over users and seeds. Goes on where it was stopped.

    The tables are written after every fit, of the seeds that are done.
    """
    from training.evaluation.comparison import Bootstrap  # noqa: PLC0415
    from training.evaluation.results import write_results  # noqa: PLC0415
    from training.evaluation.seeds import aggregate  # noqa: PLC0415

    check_names(datasets)
    done: dict[str, list[Path]] = {}
    for seed in range(seeds):
        for dataset in datasets:
            name = run_name(dataset)
            directory = runs / f"{name}-seed{seed}"
            console.print(f"{dataset}, seed {seed}", style="bold", highlight=False)
            pipeline = make_pipeline(dataset, recipe, [f"seed={seed}", *(settings or [])], directory)
            evaluate_pipeline(pipeline)
            done.setdefault(name, []).append(directory / "evaluation")
            bootstrap = Bootstrap(resamples=pipeline.recipe.evaluation.resamples, seed=0)
            write_results({name: aggregate(found, bootstrap) for name, found in done.items()}, out)
    console.print(f"results: {out / 'results.md'}", highlight=False, soft_wrap=True)
