"""What a refit takes over from the fit before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from models.rankers.of_model import CHOICES, ENCODER, INJECTED, SECOND
from tests.tiny import tiny_split
from training.allmrec.blend.config import BlendConfig
from training.allmrec.recipe import Recipe
from training.allmrec.refit import Metrics, as_chosen, refitted
from training.allmrec.stage2.config import Chosen, Stage2Config
from training.allmrec.title_tokens.config import Chosen as ChosenTitles
from training.allmrec.title_tokens.config import TitleTokensConfig
from training.backbones.config import BackboneTrainingConfig
from training.data.splits import Holdout
from training.runs.loop import LoopConfig

BACKBONE = {"chosen": "hybrid_softmax", "epochs": 12.0, "steps": 240, "best_step": 180}
STAGE1 = {"heads": {"steps": 2000}, "text encoder": {"steps": 70}, "refit heads": {"steps": 1000}}
START = {"temperature": 1.5, "similarity_weight": 2.0, "series_weight": -0.5, "user_error": 0.1}
FOUND = {"ndcg@10": 0.5}
READ = {"prior_share": 0.8, "scale": 0.3, "temperature": 1.5}
STAGE2 = {"start": START, "steps": 90, "best_step": 40}


def refit(
    title_steps: int = 20,
    validation: Mapping[str, float] = FOUND,
    weighed: Collection[str] = (SECOND,),
    **stage2: object,
) -> Recipe:
    """Of a fit with presets and a time budget."""
    loop = LoopConfig(epochs=200, minutes=8, patience=8, validate_every=2)
    backbone = BackboneTrainingConfig(presets=("sasrec_bce", "hybrid_softmax"), loop=loop)
    fast = LoopConfig(epochs=5, minutes=12, validate_first=True, clip_norm=1.0, warmup=0.02)
    recipe = Recipe(
        backbone=backbone,
        second=backbone,
        stage2=Stage2Config(loop=fast),
        title_tokens=TitleTokensConfig(loop=fast),
        blend=BlendConfig(ways=(CHOICES, INJECTED, ENCODER)),
    )
    metrics: dict[str, Metrics] = {
        "backbone": BACKBONE,
        "second": {**BACKBONE, "chosen": "sasrec_bce", "best_step": 60},
        "stage1": STAGE1,
        "stage2": {**STAGE2, **stage2},
        "title_tokens": {"start": READ, "steps": 60, "best_step": title_steps, "validation": validation},
        "user_encoder": {"steps": 90, "best_step": 25},
    }
    return refitted(recipe, metrics, weighed, Path("stage1"))


def test_the_backbone_is_the_chosen_one_for_its_best_epochs() -> None:
    """180 of 240 steps of 12 epochs are nine; nothing else ends it."""
    backbone = refit().backbone
    assert backbone.presets == ("hybrid_softmax",)
    assert (backbone.loop.epochs, backbone.loop.minutes, backbone.loop.patience) == (9.0, None, None)


def test_the_second_backbone_is_chosen_likewise() -> None:
    """60 of 240 steps of 12 epochs are three. There is none where no blend has it."""
    second = refit().second
    assert second is not None
    assert (second.presets, second.loop.epochs) == (("sasrec_bce",), 3.0)
    assert refit(weighed=()).second is None


def test_what_is_imported_is_imported_again() -> None:
    """It has no epochs, and perhaps no vectors of what was held out."""
    config = BackboneTrainingConfig(kind="external", settings={"items": "items.npz"})
    chosen = as_chosen(config, {"validation": {}, "items": 30})
    assert chosen == config.model_copy(update={"settings": {"items": "items.npz", "complete": False}})


def test_without_validation_the_last_step_counts() -> None:
    """No step is the best where nobody validates: what is fitted again after a refit takes as many epochs as it did."""
    loop = LoopConfig(epochs=9)
    metrics = {"chosen": "hybrid_softmax", "epochs": 9.0, "steps": 180, "best_step": 0}
    assert as_chosen(BackboneTrainingConfig(loop=loop), metrics).loop.epochs == 9.0


def test_stage_1_keeps_the_text_encoder() -> None:
    """And trains the heads in both of their phases as long as they took."""
    stage1 = refit().stage1
    assert (stage1.freeze, stage1.text_encoder) == (True, "stage1/text_encoder")
    assert (stage1.heads.max_steps, stage1.refit.max_steps) == (2000, 1000)


@pytest.mark.parametrize("best_step", [40, 0])
def test_stage_2_starts_and_ends_where_it_did(best_step: int) -> None:
    """By the same weights, for as many steps; for none where the warm start was best."""
    stage2 = refit(best_step=best_step).stage2
    assert stage2.chosen == Chosen(temperature=1.5, similarity_weight=2.0, series_weight=-0.5, steps=best_step)
    assert stage2.loop.max_steps == max(1, best_step)
    assert (stage2.loop.epochs, stage2.loop.minutes, stage2.loop.validate_first) == (None, None, False)
    assert (stage2.loop.clip_norm, stage2.loop.warmup) == (1.0, 0.02)


@pytest.mark.parametrize("best_step", [20, 0])
def test_title_tokens_start_and_end_where_they_did(best_step: int) -> None:
    """Lists are read by the same scale and share; where the plain list was best, nothing is trained."""
    titles = refit(title_steps=best_step).title_tokens
    assert titles.chosen == ChosenTitles(**READ, steps=best_step)
    assert (titles.loop.max_steps, titles.loop.epochs) == (max(1, best_step), None)


def test_title_tokens_that_nobody_validated_keep_their_last_step() -> None:
    chosen = refit(title_steps=0, validation={}).title_tokens.chosen
    assert chosen is not None
    assert chosen.steps == 60


def test_a_head_is_trained_for_its_best_steps() -> None:
    loop = refit().user_encoder.loop
    assert (loop.max_steps, loop.epochs, loop.patience) == (25, None, None)


def test_only_what_is_weighed_is_trained_again() -> None:
    """Ways to ask that train nothing stay, and so does stage 2's."""
    assert refit().blend.ways == (CHOICES,)
    assert refit(weighed=(ENCODER, SECOND)).blend.ways == (CHOICES, ENCODER)


def test_a_skipped_stage_is_left_as_it_was() -> None:
    """One that was not wanted has no metrics."""
    recipe = Recipe()
    again = refitted(recipe, {"backbone": BACKBONE, "stage1": STAGE1}, (), Path("stage1"))
    skipped = ("stage2", "title_tokens", "user_encoder")
    assert all(getattr(again, name) == getattr(recipe, name) for name in skipped)


def test_nothing_is_held_out_of_the_whole() -> None:
    """Every interaction is for training; users and items are the same."""
    split = tiny_split()
    whole = split.whole()
    assert [items.tolist() for items in whole.train] == [
        split.full_history(user).tolist() for user in range(len(split))
    ]
    assert not any(whole.target(holdout).any() for holdout in Holdout)
    counted = split.catalogue.interactions.copy()
    for holdout in Holdout:
        for item in split.target(holdout):
            counted[item] += 1
    assert whole.catalogue.interactions.tolist() == counted.tolist()
    assert whole.catalogue.titles == split.catalogue.titles
    assert whole.user_ids == split.user_ids
