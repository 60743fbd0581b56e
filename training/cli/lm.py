"""`allmrec-train pretrain-lm`, `average-lm` and `evaluate-lm`."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from models.errors import ConfigError
from models.llm.loading import EMBEDDED, LanguageModel, load_llm, load_tokenizer
from models.prompts.titles import encode_plain
from training.pretraining.architecture import build_interface
from training.pretraining.averaging import average
from training.pretraining.config import PretrainConfig
from training.pretraining.evaluate import Measures, measure, measure_writing
from training.pretraining.mixture import Mixture
from training.pretraining.pretrain import draw, pretrain
from training.pretraining.prompts import PromptFactory
from training.pretraining.saving import save
from training.pretraining.tokenizer import train_tokenizer
from training.runs.settings import parse_setting, put_setting
from training.runs.stage_run import StageRun

WRITTEN_PROMPTS = 200
"""Fewer than are ranked: writing takes a forward pass a token."""

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
    settings = read_config(config, changes or [])
    if minutes is not None:
        limits = {"minutes": minutes, "max_steps": None}
        settings = settings.model_copy(update={"loop": settings.loop.model_copy(update=limits)})
    if seed is not None:
        settings = settings.model_copy(update={"seed": seed})
    start = load_llm(llm) if llm else None
    _check(start, settings)
    tokenizer = train_tokenizer() if new_tokenizer else load_tokenizer(EMBEDDED)
    inputs = {"tokenizer": tokenizer.backend_tokenizer.to_str(), "start": start.fingerprint if start else ""}
    run = StageRun(out, settings, settings.seed, inputs, console)
    if run.is_done:
        console.print(f"{out}: done already", highlight=False)
        return
    metrics = pretrain(settings, tokenizer, run, start.model.state_dict() if start else None)
    console.print(table(metrics))


def _check(start: LanguageModel | None, settings: PretrainConfig) -> None:
    """Refuse to go on from an LLM that reads other tokens than those it would be trained on."""
    if start is None:
        return
    wanted = build_interface(settings.architecture, settings.interface_seed)
    if not start.required_interface().is_close(wanted):
        raise ConfigError(f"LLM '{start.name}' has another token interface than these settings: start without --llm")


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
    if out.exists():
        raise ConfigError(f"{out} is there already: choose another folder, or remove it")
    first, second = load_llm(start), load_llm(goal)
    interface = first.required_interface()
    if not interface.is_close(second.required_interface()):
        raise ConfigError(f"LLMs '{start}' and '{goal}' have different token interfaces: no mean makes sense")
    partial = out.with_name(f"{out.name}.partial")
    save(average(first, second, share), first.tokenizer, interface, partial)
    partial.rename(out)


def evaluate_lm(
    llm: Annotated[str, typer.Argument(help="'embedded', or the folder of an LLM with its interface.")] = EMBEDDED,
    prompts: Annotated[int, typer.Option(min=1, help="Freshly drawn prompts.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed draws other prompts.")] = 1234,
    candidates: Annotated[int | None, typer.Option(min=2, help="This many candidates in every prompt.")] = None,
    sharpness: Annotated[
        float,
        typer.Option(
            min=0.01, help="Median standard deviation of a prompt's logits, series left out; 1 is near a tie."
        ),
    ] = Mixture().sharpness,
) -> None:
    """Measure how much of what can be known an LLM reads, on freshly drawn prompts.

    Raises:
        ConfigError: the LLM has no interface.
    """
    loaded = load_llm(llm)
    factory = PromptFactory(loaded.tokenizer, loaded.required_interface(), loaded.context_length, seed)
    candidate_range = Mixture().candidates if candidates is None else (candidates, candidates)
    mixture = Mixture(candidates=candidate_range, sharpness=sharpness)
    examples = draw(factory, mixture, prompts, seed)
    (close_quote,) = encode_plain(loaded.tokenizer, ['"'])
    console.print(table(measure(loaded.model, examples)))
    if asked := [example for example in examples if not example.text][:WRITTEN_PROMPTS]:
        written = measure_writing(loaded.model, asked, close_quote[-1])
        console.print(
            f"Writing freely, it names a choice in {written['names_choice']:.1%} of {len(asked)} prompts,"
            f" the one that it ranks first in {written['names_first']:.1%}"
        )


def read_config(path: Path | None, changes: Sequence[str] = ()) -> PretrainConfig:
    """The settings in a TOML file, or the defaults, with `key=value` changes to them.

    Raises:
        ConfigError: the file is missing, no TOML, or file or changes say what is not a setting.
    """
    try:
        content = PretrainConfig().model_dump()
        if path is not None:
            _merge(content, tomllib.loads(path.read_text(encoding="utf-8")))
        for change in changes:
            put_setting(content, *parse_setting(change))
        return PretrainConfig.model_validate(content)
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"{path or 'pretrain-lm'}: {error}") from error


def _merge(content: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put `changes` into `content`, section by section."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(content.get(key), dict):
            _merge(content[key], value)
        else:
            content[key] = value


def table(groups: dict[str, Measures]) -> Table:
    """One row a group."""
    columns = (
        "prompts",
        "accuracy",
        "bayes",
        "share",
        "share_low",
        "share_high",
        "kl",
        "uniform_kl",
        "rank",
        "token_accuracy",
        "whole",
    )
    result = Table("group", *columns)
    for name, measures in groups.items():
        cells = [f"{measures[column]:.4g}" if column in measures else "" for column in columns]
        result.add_row(name, *cells)
    return result
