"""The backbone of the examples, in the space of the one that is served."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.placement import place
from models.backbones import represent_all
from models.prompts.template import PromptConfig
from tests.tiny import CF_SIZE, JOINT_SIZE, tiny_contents, tiny_llm, tiny_split
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.examples import ExampleConfig
from training.allmrec.stage2.held_back import HeldBack, Turned, turn_between
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.negatives import NegativeConfig
from training.allmrec.stage2.stage import train_stage2
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun


def rotation(seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(CF_SIZE, CF_SIZE, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn)[0]


@torch.no_grad()
def test_turning_changes_vectors_and_no_logit() -> None:
    """Users and items turn together."""
    split = tiny_split()
    backbone = tiny_contents(split).backbone
    turned = Turned(backbone, rotation())
    users, items = represent_all(backbone, split.train), backbone.item_vectors
    turned_users = represent_all(turned, split.train, turned.item_vectors)
    torch.testing.assert_close(turned_users, users @ rotation(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(turned_users @ turned.item_vectors.T, users @ items.T, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(turned_users, users, atol=0.1)


@torch.no_grad()
def test_the_turn_is_found() -> None:
    """Between a backbone and itself in another space; items that it was not trained on do not count."""
    split = tiny_split()
    backbone = tiny_contents(split).backbone
    other = Turned(backbone, rotation())
    stray = copy.deepcopy(backbone)
    stray.items.weight[~torch.from_numpy(split.catalogue.trained)] += 5.0
    torch.testing.assert_close(turn_between(stray, other, split), rotation(), atol=1e-4, rtol=1e-4)


def held_back(seed: int = 0) -> tuple[Stage2Inputs, HeldBack]:
    """Stage 2's inputs, and examples by the same backbone in another space, fitted to seven tenths."""
    split = tiny_split()
    contents = tiny_contents(split)
    torch.manual_seed(seed)
    sizes = AlignmentConfig(cf_size=CF_SIZE, text_size=6, joint_size=JOINT_SIZE // 2)
    alignment = Alignment(sizes).eval().requires_grad_(False)
    texts = torch.randn(len(contents.cf_vectors), 6)
    known = torch.from_numpy(split.catalogue.trained)
    placement = place(alignment, texts, contents.cf_vectors, known)
    aligned = Aligned(contents.backbone, alignment, None, texts, placement)
    model = replace(contents, joint_item=placement.token_item, joint_text=placement.token_text)
    fitted = split.holding_back(0.3)
    other = HeldBack.of(fitted, Turned(contents.backbone, rotation()), aligned)
    inputs = Stage2Inputs(split, model, ItemTexts(texts, placement.decoded_text), tiny_llm(True), PromptConfig())
    return replace(inputs, held_back=other), other


def test_examples_speak_the_space_of_what_is_served() -> None:
    """The same backbone in another space is told alike: items that it knows, users, and all that is served beside."""
    inputs, other = held_back()
    told, served = inputs.of_examples.model, inputs.model
    trained = torch.from_numpy(other.split.catalogue.trained)
    torch.testing.assert_close(told.joint_item[trained], served.joint_item[trained], atol=1e-3, rtol=1e-3)
    users = [model.user_vectors(inputs.split.train) for model in (told, served)]
    torch.testing.assert_close(*users, atol=1e-3, rtol=1e-3)
    assert told.projector is served.projector
    assert not told.cf_vectors[0].any()
    unmet = ~trained
    unmet[0] = False
    torch.testing.assert_close(told.joint_item[unmet], served.joint_text[unmet], atol=1e-4, rtol=1e-4)


def test_stage_2_learns_from_them_and_is_validated_on_what_is_served(tmp_path: Path) -> None:
    """With negatives of all kinds; the tables that it leaves are those that are served."""
    inputs, other = held_back()
    examples = ExampleConfig(
        candidates=5, batch_tokens=4000, held_back=0.3, negatives=NegativeConfig(popular=0.3, retrieved=0.3, among=6)
    )
    config = Stage2Config(examples=examples, distillation=0.25, learning_rate=3e-3, loop=LoopConfig(epochs=2))
    run = StageRun(tmp_path, config, 0, {})
    trained = train_stage2(inputs, config, run)
    assert torch.equal(trained.joint_item, inputs.model.joint_item)
    assert trained.backbone is inputs.model.backbone
    assert not torch.equal(trained.projector.user.output.weight, inputs.model.projector.user.output.weight)
    assert run.metrics["validation"]["ndcg@10"] > 0
    assert other.split.catalogue.interactions.sum() < np.sum([len(items) for items in inputs.split.train])
