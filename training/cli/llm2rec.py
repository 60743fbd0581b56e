"""`allmrec-train llm2rec` and `evaluate-encoder`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.cli.catalogue import check_names, console, make_pipeline, run_name

if TYPE_CHECKING:
    from training.llm2rec.corpus import Domain

DatasetPaths = Annotated[
    list[Path], typer.Argument(metavar="DATASET...", help="Datasets' folders, or raw files, imported first.")
]


def llm2rec(
    datasets: DatasetPaths,
    out: Annotated[Path, typer.Option(help="The run's folder; the encoder is <out>/<variant>/encoder afterwards.")],
    llm: Annotated[
        str | None,
        typer.Option("--llm", help="A causal LM: 'embedded', a hub name or a path; the config's if not given."),
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option("--variant", help="llm2rec, csft, iem (its halves alone) or raw (untrained). Can be given again."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings of LLM2RecConfig.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change a setting, such as csft.minutes=30."),
    ] = None,
) -> None:
    """Make a text encoder of an LLM that learned from histories of titles. The same command goes on after Ctrl-C.

    Raises:
        ConfigError: a setting is wrong, or the LLM cannot be used.
    """
    from models.errors import ConfigError  # noqa: PLC0415
    from training.allmrec.tuned import TunedOn  # noqa: PLC0415
    from training.llm2rec.config import VARIANTS, LLM2RecConfig  # noqa: PLC0415
    from training.llm2rec.stages import LLM2Rec  # noqa: PLC0415
    from training.runs.settings import with_changes  # noqa: PLC0415

    chosen = variants or ["llm2rec"]
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise ConfigError(f"--variant {unknown[0]}: choose among {', '.join(VARIANTS)}")
    changes = [*([f"llm={llm}"] if llm else []), *(settings or [])]
    checked = with_changes(LLM2RecConfig(), changes, "llm2rec", config)
    TunedOn.refuse(checked.llm)
    run = LLM2Rec(_domains(datasets, out), checked, out, console)
    for name in chosen:
        console.print(f"{name}: {run.encoder(name)}", highlight=False, soft_wrap=True)


def evaluate_encoder(
    datasets: DatasetPaths,
    encoders: Annotated[
        list[str],
        typer.Option(
            "--encoder", metavar="[LABEL=]ENCODER", help="'embedded', a hub name or a folder. Can be given again."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder of recommenders and report.")],
    uses: Annotated[
        list[str] | None,
        typer.Option(
            "--use", help="sasrec or gru4rec (items are their texts), or hybrid (and their ids); all if not given."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train every recommender so many times; figures are means.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of TrialConfig.")
    ] = None,
) -> None:
    """Compare text encoders by what a recommender makes of their frozen vectors: each with the first."""
    from training.llm2rec.compare import compare  # noqa: PLC0415
    from training.llm2rec.trials import TrialConfig, known_uses, labelled  # noqa: PLC0415
    from training.runs.settings import with_changes  # noqa: PLC0415

    checked = with_changes(TrialConfig(), settings or [], "evaluate-encoder")
    labels = labelled(encoders)
    path = compare(_domains(datasets, out), labels, uses or known_uses(), checked, out, console, seeds)
    console.print(path.read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True)


def _domains(datasets: list[Path], out: Path) -> list[Domain]:
    from training.llm2rec.corpus import Domain  # noqa: PLC0415
    from training.runs.occupied import occupy  # noqa: PLC0415

    check_names(datasets)
    occupy(out)
    domains = []
    for path in datasets:
        pipeline = make_pipeline(path, "default", None, out / "data" / run_name(path))
        domains.append(Domain(run_name(path), pipeline.split))
    return domains
