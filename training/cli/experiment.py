"""`allmrec-train experiment`: the papers' tables."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import ConfigError, DataError
from training.cli.catalogue import RecipeName, Settings, check_names, console, run_name

if TYPE_CHECKING:
    from training.experiments.registry import Experiment

HOME = Path("runs") / "experiments"


def experiment(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE] DATASET...",
            help="A table's name (none with --all), then datasets' folders, raw files, or presets.",
        ),
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="All tables; without DATASET on the presets in --files.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Name every system, table and preset with what it takes.")
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many; each changes all that is random.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="SYSTEM", help="Rows of this system alone. Can be given again."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="What a cross-domain table asks about: a dataset, or a preset. The paper's for a preset that has one.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            min=0.001,
            help="No loop of any training takes longer; what is regressed first, stage 2's warm start, counts steps.",
        ),
    ] = None,
    files: Annotated[Path, typer.Option("--files", help="The folder of the presets' raw files.")] = Path(),
    out: Annotated[Path, typer.Option("--out", help="Stages, answers and tables are kept in <out>/<dataset>.")] = HOME,
    recipe: RecipeName = "papers",
    settings: Settings = None,
) -> None:
    """Run a table of the papers on a dataset: Markdown, JSON and a picture. The same command goes on after Ctrl-C."""
    if list_:
        _show_list()
        return
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    from training.experiments.presets import present  # noqa: PLC0415
    from training.experiments.run import Ground  # noqa: PLC0415
    from training.runs.occupied import occupy  # noqa: PLC0415

    transformers_logging.disable_progress_bar()
    chosen, datasets = _chosen(list(names or ()), every, only or [])
    check_names([Path(dataset) for dataset in datasets])
    for dataset in datasets or (present(files) if every else []) or _nothing(files):
        path, preset = _dataset(dataset, files, out)
        changed = _settings([*preset], settings or [], minutes, recipe)
        occupy(out / run_name(Path(dataset)))
        ground = Ground(path, out / run_name(Path(dataset)), recipe, console, changed)
        asked = target or _papers_target(dataset, files, out)
        for one in chosen:
            if every and one.needs_target and asked is None:
                console.print(f"{one.id} is left out: it needs --target", highlight=False)
                continue
            try:
                if one.needs_target and asked is not None:
                    other, _ = _dataset(asked, files, out)
                    if other.resolve() == path.resolve():
                        raise DataError("a cross-domain table asks about another dataset: --target is the same one")
                    ground = replace(ground, target=other, target_name=run_name(Path(asked)))
                written = one.run(ground, seeds)
            except DataError as error:
                if not every and len(datasets) < 2:
                    raise
                said = f"{one.id} of {dataset} is left out: {error}"
                console.print(said, style="yellow", highlight=False, markup=False, soft_wrap=True)
                continue
            console.print(written.read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True)
            console.print(f"written: {written}", highlight=False, soft_wrap=True)


def _chosen(names: list[str], every: bool, only: list[str]) -> tuple[list[Experiment], list[str]]:
    """Experiments, and datasets as given."""
    from training import baselines  # noqa: PLC0415
    from training.baselines.port import find_systems  # noqa: PLC0415
    from training.experiments.genres import FIGURES  # noqa: PLC0415
    from training.experiments.registry import experiments  # noqa: PLC0415

    systems = find_systems(baselines)
    for name in only:
        if name not in systems:
            near = difflib.get_close_matches(name, systems, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "--list names them"
            raise ConfigError(f"--only: no such system: '{name}', {hint}")
    found = experiments(only)
    if only and names and names[0] in FIGURES:
        raise ConfigError(f"{names[0]} is always drawn whole: leave --only out")
    if only and names and names[0] in experiments() and names[0] not in found:
        raise ConfigError(f"{names[0]} has no row of {', '.join(only)}")
    if every:
        return list(found.values()), names
    if not names or names[0] not in found:
        raise ConfigError(f"name a table first, one of {', '.join(found)}, or say --all; --list tells what they are")
    return [found[names[0]]], names[1:]


def _nothing(files: Path) -> list[str]:
    raise ConfigError(f"name a dataset: a folder, raw files, or a preset whose files are in --files ({files})")


def _dataset(name: str, files: Path, out: Path) -> tuple[Path, tuple[str, ...]]:
    """Where a dataset stands, and what of the recipe is its own."""
    from training.experiments.presets import PRESETS, import_preset  # noqa: PLC0415
    from training.runs.occupied import occupy  # noqa: PLC0415

    if name in PRESETS and not Path(name).exists():
        occupy(out / name)
        return import_preset(name, files, out / name / "data", console), PRESETS[name].settings
    return Path(name), ()


def _papers_target(dataset: str, files: Path, out: Path) -> str | None:
    """The preset whose users the paper asks about across domains, if it can be had."""
    from training.experiments.presets import PRESETS, is_imported, present  # noqa: PLC0415

    paper = PRESETS[dataset].target if dataset in PRESETS and not Path(dataset).exists() else None
    return paper if paper is not None and (paper in present(files) or is_imported(out / paper / "data")) else None


def _settings(preset: list[str], given: list[str], minutes: float | None, recipe: str) -> list[str]:
    """Of the recipe: the preset's, the limit of all loops, and what is given, which goes before both."""
    from training.allmrec.recipe import load_recipe  # noqa: PLC0415

    if minutes is None:
        return [*preset, *given]
    loops = ("backbone.loop", "stage1.heads", "stage1.loop", "stage1.refit", "stage2.loop", "baselines.every")
    settings = [*preset, *(f"{loop}.minutes={minutes}" for loop in loops), *given]
    rehearsal = load_recipe(recipe, settings).stage2.rehearsal
    unsaid = rehearsal is not None and not any("rehearsal" in one and "minutes" in one for one in given)
    return [*settings, *([f"stage2.rehearsal.minutes={minutes}"] if unsaid else [])]


def _show_list() -> None:
    from training import baselines  # noqa: PLC0415
    from training.baselines.port import find_systems  # noqa: PLC0415
    from training.experiments.presets import PRESETS  # noqa: PLC0415
    from training.experiments.registry import experiments  # noqa: PLC0415

    lines = ["systems, and what each takes:"]
    lines += [f"  {name:18} {found.title}: {found.takes}" for name, found in sorted(find_systems(baselines).items())]
    lines += ["tables, and who takes part:"]
    for name, one in experiments().items():
        needs = "; needs --target" if one.needs_target else ""
        lines.append(f"  {name:18} {one.title}{needs}: {', '.join(one.who)}")
    lines += ["presets, and the files that each takes from --files:"]
    for name, preset in PRESETS.items():
        reviews, items = (path.name for path in preset.sources(Path()))
        rating = f", ratings from {preset.min_rating:g}" if preset.min_rating is not None else ""
        lines.append(f"  {name:18} {reviews}, {items}; {preset.core}-core{rating}, domain {preset.domain}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
