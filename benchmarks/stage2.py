"""Ways to train stage 2 on one backbone and one stage 1: how each ranks, group by group, beside that backbone.

All start alike and take as many steps; what they end with is what is measured, whether it is better or not.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from models.composer import PromptComposer
from models.engines.transformers import in_process
from models.rankers.base import Ranker
from models.rankers.collaborative import CollaborativeRanker
from models.rankers.llm import LLMRanker
from training.allmrec.pipeline import Pipeline
from training.allmrec.recipe import load_recipe
from training.allmrec.stage2.approach import approach_of
from training.allmrec.stage2.config import Chosen, Stage2Config
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import METRICS, paired_difference, positive_ranks
from training.runs.loop import LoopConfig

START = "start"
FIRST_STAGES = ("backbone", "stage1", "examples")
GROUPS = ("overall", "warm", "cold", "unseen")
NEGATIVES = 19
PART = 256
"""Users whose whole catalogue is scored at once."""

Among = Literal["uniform", "retrieved"]


@dataclass(frozen=True)
class Settings:
    """What is the same for all ways.

    Attributes:
        dataset: an imported one.
        recipe: by name or path.
        settings: that change it.
        steps: of each way by the LLM.
        users: who are ranked for, spread evenly.
        holdout: which of their items.
        asks: whether the LLM ranks too, or its tokens are only read exactly.
        among: which 19 negatives an item is to be found among: any, or those that the backbone would retrieve first.
    """

    dataset: Path
    recipe: str
    settings: tuple[str, ...]
    steps: int
    users: int
    holdout: Holdout
    asks: bool = True
    among: Among = "uniform"


def measure(common: Settings, ways: Mapping[str, Sequence[str]], out: Path) -> Iterator[dict[str, Any]]:
    """A row for the backbone, one for the warm start, and one for each way, as it is done.

    Args:
        common: of all.
        ways: further settings, by name.
        out: folder of the runs; what was trained there before is not trained again.
    """
    console = Console(stderr=True)
    base = Pipeline(common.dataset, load_recipe(common.recipe, common.settings), out / START, console)
    first = base.recipe.stage2.model_copy(update={"loop": LoopConfig(max_steps=1)})
    found = _with_stage2(base, first, out / "found", console)
    chosen = _chosen(found)
    held_out = HeldOut.of(base.split, common.holdout, base.recipe.evaluation.seed, common.users)
    started = _with_stage2(base, first.model_copy(update={"chosen": chosen}), out / START, console)
    by_cf = CollaborativeRanker("cf", "CF", base.backbone)
    if common.among == "retrieved":
        held_out = asyncio.run(_among_retrieved(held_out, by_cf))
    cf = asyncio.run(by_cf.score(held_out.users, held_out.candidates.items)) / chosen.temperature
    yield _row(type(base.backbone).__name__, cf, cf, held_out)
    yield from _rows(START, started, cf, (held_out, common.asks))
    for name, settings in ways.items():
        config = load_recipe(common.recipe, [*common.settings, *settings]).stage2
        ends = {"max_steps": max(1, common.steps), "minutes": None, "validate_first": False}
        rehearsal = config.rehearsal.max_steps if config.rehearsal else None
        steps = chosen.model_copy(update={"steps": common.steps, "rehearsal_steps": rehearsal or 0})
        update = {"chosen": steps, "loop": config.loop.model_copy(update=ends)}
        trained = _with_stage2(base, config.model_copy(update=update), out / name, console)
        yield from _rows(name, trained, cf, (held_out, common.asks))


async def _among_retrieved(held_out: HeldOut, ranker: Ranker) -> HeldOut:
    """The same among the items that `ranker` puts first of those that a user did not meet."""
    items_E_C = np.empty((len(held_out), 1 + NEGATIVES), dtype=np.int64)
    items_E_C[:, 0] = held_out.positives
    for start in range(0, len(held_out), PART):
        part = held_out.part(start, start + PART)
        scores_E_N = await ranker.score_all(part.users, len(held_out.catalogue))
        for row, (history, positive) in enumerate(zip(part.users.histories, part.positives, strict=True)):
            scores_E_N[row, [*history, positive]] = -np.inf
        items_E_C[start : start + len(part), 1:] = np.argsort(-scores_E_N, axis=1)[:, :NEGATIVES]
    return held_out.among(items_E_C)


def _with_stage2(base: Pipeline, config: Stage2Config, directory: Path, console: Console) -> Pipeline:
    """The same with another stage 2, in a folder to which the stages before it are copied."""
    _ = base.aligned
    for stage in FIRST_STAGES:
        finished = base.directory / stage
        if finished.is_dir() and not (directory / stage).exists():
            shutil.copytree(finished, directory / stage)
    recipe = base.recipe.model_copy(update={"stage2": config})
    pipeline = Pipeline(base.dataset_path, recipe, directory, console)
    _ = pipeline.model
    if (directory / "examples").is_dir() and not (base.directory / "examples").exists():
        shutil.copytree(directory / "examples", base.directory / "examples")
    return pipeline


def _chosen(pipeline: Pipeline) -> Chosen:
    start = pipeline.stage2_metrics["start"]
    weights = {name: start.get(name, 0.0) for name in ("similarity_weight", "series_weight")}
    return Chosen(temperature=start["temperature"], steps=0, **weights)


def _rows(name: str, pipeline: Pipeline, cf: np.ndarray, occasion: tuple[HeldOut, bool]) -> Iterator[dict[str, Any]]:
    """Of the LLM, if it is to be asked, and of its tokens where they can be read exactly."""
    held_out, asks = occasion
    composer = PromptComposer(pipeline.model, pipeline.prompt, pipeline.llm.tokenizer, pipeline.llm.context_length)

    async def ask() -> np.ndarray:
        async with in_process(pipeline.llm) as engine:
            return await LLMRanker("allmrec", name, engine, composer).score(held_out.users, held_out.candidates.items)

    if asks:
        yield _row(name, asyncio.run(ask()), cf, held_out)
    for reader in approach_of(pipeline.llm).readers(composer)[:1]:
        read = asyncio.run(reader.score(held_out.users, held_out.candidates.items))
        yield _row(f"{name}, tokens read exactly", read, cf, held_out)


def _row(name: str, scores: np.ndarray, cf: np.ndarray, held_out: HeldOut) -> dict[str, Any]:
    log_probs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    row: dict[str, Any] = {"way": name, "log P": f"{log_probs[:, 0].mean():.3f}"}
    for metric in ("hit@1", "ndcg@10"):
        values, reference = (METRICS[metric](positive_ranks(table)) for table in (scores, cf))
        masks = [held_out.all_groups[group] for group in GROUPS]
        row[metric] = " / ".join(f"{values[mask].mean():.3f}" for mask in masks if mask.any())
        ahead = [paired_difference(values[mask], reference[mask]) for mask in masks if mask.any()]
        row[f"{metric} ahead"] = " / ".join(f"{each.mean:+.3f} ({each.low:+.3f} to {each.high:+.3f})" for each in ahead)
    return row
