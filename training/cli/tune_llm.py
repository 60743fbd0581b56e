"""`allmrec-train tune-llm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.cli.catalogue import DatasetPath, console, make_pipeline, run_name


def tune_llm(
    dataset: DatasetPath,
    llm: Annotated[str, typer.Option("--llm", help="A causal LM: a hub name or a path.")],
    out: Annotated[Path, typer.Option(help="The run's folder; the LLM is <out>/llm afterwards.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of TunedLLMConfig, such as device=cuda."),
    ] = None,
) -> None:
    """Tune an LLM to rank the titles of a catalogue; a GPU is needed for all but the smallest.

    The same command goes on after Ctrl-C.
    """
    from models.domain import DOMAINS  # noqa: PLC0415
    from training.runs.settings import with_changes  # noqa: PLC0415
    from training.tuning.config import TunedLLMConfig  # noqa: PLC0415
    from training.tuning.tune import tune_llm as tune  # noqa: PLC0415

    checked = with_changes(TunedLLMConfig(llm=llm), settings or [], "tune-llm")
    pipeline = make_pipeline(dataset, "default", None, out / "data" / run_name(dataset))
    folder = tune(pipeline.split, DOMAINS[pipeline.dataset.info.domain], checked, out, console)
    console.print(f"tuned: {folder}", highlight=False, soft_wrap=True)
