"""Fits everything again on all interactions: what was held out to choose by is of use to those who are served.

Nothing is chosen here. Presets, epochs, steps, temperature and the weights of tokens and blends are those that the
fit before has chosen on validation items; the text encoder is the one that it fine-tuned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from models.config import Config
from models.rankers.of_model import ENCODER, INJECTED, SECOND
from training.allmrec.recipe import Recipe
from training.allmrec.stage1.aligned import TEXT_ENCODER_FOLDER
from training.allmrec.stage1.config import Stage1Config
from training.allmrec.stage2.config import Chosen, Stage2Config
from training.allmrec.title_tokens.config import Chosen as ChosenTitles
from training.allmrec.title_tokens.config import TitleTokensConfig
from training.allmrec.user_encoder import UserEncoderConfig
from training.backbones.config import BackboneTrainingConfig
from training.runs.loop import LoopConfig

Metrics = Mapping[str, Any]
"""A stage's `metrics.json`."""


def refitted(recipe: Recipe, metrics: Mapping[str, Metrics], weighed: Collection[str], stage1_folder: Path) -> Recipe:
    """The recipe for all interactions, which leaves nothing to be chosen.

    Backbones are the chosen presets, for as many epochs as gave the best weights, the second only if a blend has it.
    Stage 1 trains heads alone, for as many steps as both of their phases had. What follows goes from the same start for
    as many steps as gave the best weights. The ways to ask that train are those that are weighed.

    Args:
        recipe: of the fit before.
        metrics: of its stages, by name: those that it wanted.
        weighed: ids of the signals that either of its blends has.
        stage1_folder: has the fine-tuned text encoder.
    """
    second = recipe.second if SECOND in weighed else None
    ways = tuple(way for way in recipe.blend.ways if way not in (ENCODER, INJECTED) or way in weighed)
    changes: dict[str, Config | None] = {
        "backbone": as_chosen(recipe.backbone, metrics["backbone"]),
        "second": second and as_chosen(second, metrics["second"]),
        "stage1": _stage1(recipe.stage1, metrics["stage1"], stage1_folder),
        "stage2": _stage2(recipe.stage2, metrics.get("stage2", {})),
        "title_tokens": _title_tokens(recipe.title_tokens, metrics.get("title_tokens", {})),
        "user_encoder": _user_encoder(recipe.user_encoder, metrics.get("user_encoder", {})),
        "blend": recipe.blend.model_copy(update={"ways": ways}),
    }
    return recipe.model_copy(update=changes)


def as_chosen(config: BackboneTrainingConfig, metrics: Metrics) -> BackboneTrainingConfig:
    """The chosen preset, for as many epochs as gave the best weights; what is imported is imported again.

    Of items that were held out there may be no vectors: another library had not met them.

    Args:
        config: of the stage.
        metrics: of the stage.
    """
    if config.is_external:
        return config.model_copy(update={"settings": {**config.settings, "complete": False}})
    # Where nobody validates no step is the best, and the last one's weights are kept.
    epochs = metrics["epochs"] * (metrics["best_step"] or metrics["steps"]) / max(1, metrics["steps"])
    loop = LoopConfig(**{**_schedule(config.loop), "epochs": max(epochs, 1.0)})
    chosen = {"presets": (metrics["chosen"],)} if config.presets else {}
    return config.model_copy(update={**chosen, "loop": loop})


def _stage1(config: Stage1Config, metrics: Metrics, folder: Path) -> Stage1Config:
    heads, refit = (
        LoopConfig(**{**_schedule(loop), "max_steps": max(1, metrics[phase]["steps"])})
        for phase, loop in (("heads", config.heads), ("refit heads", config.refit))
    )
    kept = {"freeze": True, "text_encoder": str(folder / TEXT_ENCODER_FOLDER)}
    return config.model_copy(update={**kept, "heads": heads, "refit": refit})


def _stage2(config: Stage2Config, metrics: Metrics) -> Stage2Config:
    if not metrics:  # it was skipped, and will be
        return config
    start = metrics["start"]
    chosen = Chosen(
        temperature=start["temperature"],
        similarity_weight=start.get("similarity_weight", 0.0),
        series_weight=start.get("series_weight", 0.0),
        steps=metrics["best_step"],
        rehearsal_steps=int(start.get("rehearsal_steps", 0)),
    )
    loop = LoopConfig(**{**_schedule(config.loop), "max_steps": max(1, chosen.steps)})
    return config.model_copy(update={"chosen": chosen, "loop": loop})


def _title_tokens(config: TitleTokensConfig, metrics: Metrics) -> TitleTokensConfig:
    if not metrics:
        return config
    # Where nobody validates the last weights are kept; where somebody does, the start may be.
    chosen = ChosenTitles(**metrics["start"], steps=metrics["best_step" if metrics["validation"] else "steps"])
    loop = LoopConfig(**{**_schedule(config.loop), "max_steps": max(1, chosen.steps)})
    return config.model_copy(update={"chosen": chosen, "loop": loop})


def _user_encoder(config: UserEncoderConfig, metrics: Metrics) -> UserEncoderConfig:
    if not metrics:
        return config
    loop = LoopConfig(**{**_schedule(config.loop), "max_steps": max(1, metrics["best_step"] or metrics["steps"])})
    return config.model_copy(update={"loop": loop})


def _schedule(loop: LoopConfig) -> dict[str, Any]:
    """All of a loop but when it ends."""
    kept = loop.model_dump(exclude={"epochs", "max_steps", "minutes", "patience", "validate_first"})
    return {**kept, "validate_first": False}
