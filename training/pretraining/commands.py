"""What `allmrec-train pretrain-lm`, `average-lm` and `evaluate-lm` do."""

from __future__ import annotations

from pathlib import Path

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
from training.runs.stage_run import StageRun

WRITTEN_PROMPTS = 200
"""Fewer than are ranked: writing takes a forward pass a token."""


def make_lm(out: Path, settings: PretrainConfig, start_from: str | None, new_tokenizer: bool, console: Console) -> None:
    """Train a small OPT to read injected tokens, or go on where an earlier call was stopped.

    Args:
        out: the run's folder; the LLM is in its folder `llm` afterwards.
        settings: how.
        start_from: an LLM to go on from instead of the initialisation.
        new_tokenizer: train the tokenizer too, instead of taking the shipped one.
        console: where progress is shown.

    Raises:
        ConfigError: the LLM to start from reads other tokens than those settings train on.
    """
    start = load_llm(start_from) if start_from else None
    _check(start, settings)
    tokenizer = train_tokenizer() if new_tokenizer else load_tokenizer(EMBEDDED)
    inputs = {"tokenizer": tokenizer.backend_tokenizer.to_str(), "start": start.fingerprint if start else ""}
    run = StageRun(out, settings, settings.seed, inputs, console)
    if run.is_done:
        run.console.print(f"{out}: done already", highlight=False)
        return
    metrics = pretrain(settings, tokenizer, run, start.model.state_dict() if start else None)
    run.console.print(table(metrics))


def _check(start: LanguageModel | None, settings: PretrainConfig) -> None:
    """Refuse to go on from an LLM that reads other tokens than those it would be trained on."""
    if start is None:
        return
    wanted = build_interface(settings.architecture, settings.interface_seed)
    if not start.required_interface().is_close(wanted):
        raise ConfigError(f"LLM '{start.name}' has another token interface than these settings: start without --llm")


def average_lms(start: str, goal: str, out: Path, share: float) -> None:
    """Make an LLM whose weights lie `share` of the way from those of `start` to those of `goal`.

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


def measure_lm(
    llm: str, prompts: int, seed: int, candidates: int | None, sharpness: float | None, console: Console
) -> None:
    """Measure how much of what can be known an LLM reads, on freshly drawn prompts; settings as the command has them.

    Raises:
        ConfigError: the LLM has no interface.
    """
    loaded = load_llm(llm)
    factory = PromptFactory(loaded.tokenizer, loaded.required_interface(), loaded.context_length, seed)
    candidate_range = Mixture().candidates if candidates is None else (candidates, candidates)
    mixture = Mixture(candidates=candidate_range, sharpness=sharpness or Mixture().sharpness)
    examples = draw(factory, mixture, prompts, seed)
    (close_quote,) = encode_plain(loaded.tokenizer, ['"'])
    console.print(table(measure(loaded.model, examples)))
    if asked := [example for example in examples if not example.text][:WRITTEN_PROMPTS]:
        written = measure_writing(loaded.model, asked, close_quote[-1])
        console.print(
            f"Writing freely, it names a choice in {written['names_choice']:.1%} of {len(asked)} prompts,"
            f" the one that it ranks first in {written['names_first']:.1%}"
        )


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
