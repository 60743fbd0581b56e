"""The head on the LLM's states: what it learns from, what it learns, and that nothing is read twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from models.catalogue import Catalogue
from models.engines import transformers as engine_module
from models.prompts.template import PromptConfig
from models.prompts.title_list import TitleListConfig
from tests.tiny import CF_SIZE, tiny_contents, tiny_llm
from tests.training.ground import COLOURS
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.user_encoder import (
    UserEncoderConfig,
    distillation_loss,
    drawn_items,
    fit_head,
    read_histories,
    softmax_loss,
    train_user_encoder,
)
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun

CONFIG = UserEncoderConfig(
    prompts=150, hidden_size=64, dropout=0.1, distillation=0.0, batch_size=64, loop=LoopConfig(epochs=25)
)


def colour_split(users: int = 100, seed: int = 0) -> SequenceSplit:
    """Users who like one colour of eight, which titles tell."""
    rng = np.random.default_rng(seed)
    met = [1 + 8 * (user % 8) + rng.permutation(8)[:7] for user in range(users)]
    train = [items[:5] for items in met]
    counts = np.bincount(np.concatenate(train), minlength=65)[1:]
    catalogue = Catalogue(
        item_ids=[f"i{item}" for item in range(1, 65)],
        titles=[f"{COLOURS[item // 8]} {item % 8}" for item in range(64)],
        descriptions=[""] * 64,
        categories=[()] * 64,
        interactions=counts,
    )
    last = np.asarray([items[5:] for items in met])
    return SequenceSplit([f"u{user}" for user in range(users)], catalogue, train, last[:, 0], last[:, 1])


@pytest.fixture(scope="module")
def inputs() -> Stage2Inputs:
    """A CF space in which things of one colour are near each other, and an LLM that knows nothing."""
    split = colour_split()
    torch.manual_seed(0)
    place = torch.zeros(65, CF_SIZE)
    place[1:] = 3 * torch.eye(8).repeat_interleave(8, dim=0) + 0.3 * torch.randn(64, CF_SIZE)
    model = replace(tiny_contents(split), cf_vectors=place)
    texts = ItemTexts(torch.zeros(0), torch.zeros(0))
    # As many as validation histories show; what it makes of longer lists, an LLM that knows nothing does not tell.
    shown = TitleListConfig(history_items=2)
    return Stage2Inputs(split, model, texts, tiny_llm(), PromptConfig(title_list=shown))


def stage(directory: Path, config: UserEncoderConfig = CONFIG) -> StageRun:
    return StageRun(directory, config, config.seed, {}, Console(quiet=True))


def test_every_title_of_a_list_is_a_position(inputs: Stage2Inputs) -> None:
    """Of each window so many states as it has items but one, with the items that followed: those of lists so long."""
    held_out = HeldOut.of(inputs.split, Holdout.VALIDATION, 0, 10)
    config = CONFIG.model_copy(update={"prompts": 3})
    longer = replace(inputs, prompt=PromptConfig())
    learned, asked = read_histories(longer, held_out, config, stage(Path("nowhere")))
    assert (learned.states.shape, asked.shape) == ((12, 32), (10, 32))
    chosen = np.random.default_rng(0).permutation(100)[:3]
    assert learned.targets.tolist() == [item for user in chosen for item in inputs.split.train[user][1:]]
    watched = [inputs.split.train[user][: place + 1] for user in chosen for place in range(4)]
    torch.testing.assert_close(learned.teachers, inputs.model.user_vectors(watched))
    shorter = replace(inputs.split, train=[items[:3] for items in inputs.split.train])
    fewer, _ = read_histories(replace(longer, split=shorter), held_out, config, stage(Path("nowhere")))
    torch.testing.assert_close(fewer.states, learned.states[[0, 1, 4, 5, 8, 9]], atol=1e-4, rtol=0)


def test_the_head_learns_what_the_titles_tell(
    inputs: Stage2Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation items of the user's colour come first, where chance is .05; all is read once, whatever is changed."""
    head = train_user_encoder(inputs, CONFIG, stage(tmp_path / "run"), tmp_path / "answers")
    metrics = stage(tmp_path / "run").metrics
    assert metrics["positions"] == 300
    assert metrics["validation"]["hit@1"] > 0.2
    monkeypatch.setattr(engine_module, "encode_prompts", None)
    again = train_user_encoder(inputs, CONFIG, stage(tmp_path / "run"), tmp_path / "answers")
    other = CONFIG.model_copy(update={"loop": LoopConfig(max_steps=2)})
    changed = train_user_encoder(inputs, other, stage(tmp_path / "other", other), tmp_path / "answers")
    states = torch.randn(4, 32)
    assert torch.equal(again(states), head(states))
    assert not torch.equal(changed(states), head(states))


def test_the_loss_is_a_softmax_over_the_catalogue() -> None:
    """Of all items to rounding; the sum that a sample stands for is right in the mean of many."""
    torch.manual_seed(0)
    users, items = torch.randn(5, 4), torch.randn(41, 4)
    targets, met = torch.tensor([1, 7, 7, 20, 40]), torch.arange(1, 41)
    exact = torch.nn.functional.cross_entropy(users @ items[1:].T, targets - 1)
    assert torch.equal(drawn_items(met, 40), met)
    torch.testing.assert_close(softmax_loss(users, targets, items, met, 40), exact)
    one, target = users[:1], targets[:1]
    whole = softmax_loss(one, target, items, met, 40).exp()
    sampled = torch.stack([softmax_loss(one, target, items, drawn_items(met, 39), 40).exp() for _ in range(500)])
    assert abs(float(sampled.mean() - whole)) < 4 * float(sampled.std()) / 500**0.5


def test_the_backbone_can_teach(inputs: Stage2Inputs, tmp_path: Path) -> None:
    """With nothing else to learn from, the head is clearly nearer to the teacher than any one distribution for all."""
    config = CONFIG.model_copy(update={"distillation": 1.0})
    held_out = HeldOut.of(inputs.split, Holdout.VALIDATION, 0, 50)
    learned, asked_E_H = read_histories(inputs, held_out, config, stage(tmp_path))
    # What it teaches can be told by titles alone: a thing of the colour of all that came before.
    taught = replace(learned, teachers=inputs.model.cf_vectors[learned.targets])
    head, _ = fit_head(taught, held_out, asked_E_H, inputs.model, config, stage(tmp_path))
    items_M_D = inputs.model.cf_vectors[1:]
    reached = distillation_loss(head(learned.states), taught.teachers, items_M_D)
    for_all = (taught.teachers @ items_M_D.T).softmax(dim=1).mean(dim=0)
    assert reached < -(for_all * for_all.log()).sum() - 0.3


def test_the_distillation_loss_is_least_at_the_teacher() -> None:
    """There it is the teacher's entropy."""
    torch.manual_seed(0)
    teachers, items = torch.randn(5, 4), torch.randn(30, 4)
    entropy = torch.distributions.Categorical(logits=teachers @ items.T).entropy().mean()
    torch.testing.assert_close(distillation_loss(teachers, teachers, items), entropy)
    assert distillation_loss(1.1 * teachers, teachers, items) > entropy
