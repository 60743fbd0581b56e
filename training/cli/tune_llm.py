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
    by_time: Annotated[
        bool, typer.Option("--time-split", help="Learn from what was before the moment that `--time-split` splits at.")
    ] = False,
) -> None:
    """Tune an LLM to rank the titles of a catalogue; a GPU is needed for all but the smallest.

    The same command goes on after Ctrl-C.
    """
    from models.devices import check_devices  # noqa: PLC0415
    from models.domain import DOMAINS  # noqa: PLC0415
    from training.runs.occupied import occupy  # noqa: PLC0415
    from training.runs.settings import with_changes  # noqa: PLC0415
    from training.tuning.config import TunedLLMConfig  # noqa: PLC0415
    from training.tuning.tune import check_llm  # noqa: PLC0415
    from training.tuning.tune import tune_llm as tune  # noqa: PLC0415

    config = with_changes(TunedLLMConfig(llm=llm), settings or [], "tune-llm")
    check_devices([config.device])
    check_llm(config.llm)
    occupy(out)
    data = make_pipeline(dataset, "default", None, out / "data" / run_name(dataset), by_time=by_time)
    tune(data.split, DOMAINS[data.dataset.info.domain], config, data.tuning_data, out, console)
