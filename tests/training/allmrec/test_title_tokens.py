"""Injected tokens in lists of titles: they begin at nothing, the loss is what serving computes, and they learn."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from models.alignment.projection import TitleProjector
from models.composer import PromptComposer
from models.engines.transformers import in_process
from models.errors import BundleError
from models.llm.forward import embed_tokens
from models.prompts.layout import Slot
from models.prompts.template import PromptConfig
from models.prompts.title_list import TitleListConfig
from models.rankers.base import Audience
from models.rankers.title_likelihood import InjectedTitleRanker, title_priors
from models.scoring.likelihood import score_continuations
from tests.tiny import CF_SIZE, JOINT_SIZE, TOKEN_SIZE, tiny_contents, tiny_llm
from tests.training.allmrec.test_user_encoder import colour_split
from training.allmrec.foundation import Foundation
from training.allmrec.recipe import load_recipe
from training.allmrec.stage2.examples import ExampleConfig
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.stage import sampler_of
from training.allmrec.stage2.teachers import collaborative_teacher
from training.allmrec.title_tokens.config import Chosen, Start, TitleTokensConfig
from training.allmrec.title_tokens.loss import TitleTokensLoss
from training.allmrec.title_tokens.stage import fit_title_tokens, read_plainly, start_plainly, train_title_tokens
from training.runs.context import RunContext
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun

QUIET = Console(quiet=True)
EXAMPLES = ExampleConfig(candidates=5, history_items=3, text_prompts=0.0, text_items=0.0, batch_tokens=4096)
START = Start(prior_share=0.5, scale=0.3, temperature=1.0)


@pytest.fixture(scope="module")
def inputs() -> Stage2Inputs:
    """A CF space in which things of one colour are near each other, and an LLM that knows nothing."""
    split = colour_split()
    torch.manual_seed(0)
    place = torch.zeros(65, CF_SIZE)
    place[1:] = 3 * torch.eye(8).repeat_interleave(8, dim=0) + 0.3 * torch.randn(64, CF_SIZE)
    model = replace(tiny_contents(split), cf_vectors=place)
    texts = ItemTexts(torch.zeros(65, 1), torch.zeros(65, CF_SIZE))
    prompt = PromptConfig(title_list=TitleListConfig(history_items=3))
    llm = tiny_llm()
    composer = PromptComposer(model, prompt, llm.tokenizer, llm.context_length)

    async def priors() -> np.ndarray:
        async with in_process(llm) as engine:
            return await title_priors(engine, composer)

    return Stage2Inputs(split, replace(model, title_log_probs=asyncio.run(priors())), texts, llm, prompt)


def projected(inputs: Stage2Inputs, noise: float = 0.0) -> Stage2Inputs:
    """With projections that begin at nothing, or near it."""
    torch.manual_seed(1)
    projector = TitleProjector(CF_SIZE, JOINT_SIZE, TOKEN_SIZE)
    inputs = replace(inputs, model=replace(inputs.model, title_projector=projector))
    start_plainly(projector, inputs, inputs.composer(inputs.model), START, 0)
    with torch.no_grad():
        for weight in (projector.user.output.weight, projector.item.output.weight):
            weight.add_(noise * torch.randn_like(weight))
    return inputs


def composed(inputs: Stage2Inputs) -> PromptComposer:
    return inputs.composer(inputs.model)


async def scored(inputs: Stage2Inputs, users: Audience, items_E_C: np.ndarray) -> np.ndarray:
    async with in_process(inputs.llm) as engine:
        return await InjectedTitleRanker(engine, composed(inputs)).score(users, items_E_C)


def test_tokens_stand_where_titles_end_and_where_the_next_begins(inputs: Stage2Inputs) -> None:
    """Those of the items in the place of closing quotes, the user's in that of the last opening one."""
    composer = composed(inputs)
    layout, plain = composer.lists.layout([1, 9, 17, 25]), composer.title_likelihood([1, 9, 17, 25], [2]).prompt
    assert np.array_equal(layout.token_ids, plain.token_ids)
    assert layout.shown == 3
    assert layout.slot_kinds.tolist() == [Slot.HISTORY] * 3 + [Slot.USER]
    assert layout.slot_ordinals.tolist() == [1, 2, 3, 0]
    assert layout.soft_positions[-1] == len(plain.token_ids) - 1
    stood = [composer.lists.slots[Slot(kind)] for kind in layout.slot_kinds]
    assert layout.token_ids[layout.soft_positions].tolist() == stood
    for place in layout.soft_positions[:3]:
        assert '"' in inputs.llm.tokenizer.decode(layout.token_ids[place : place + 1])
    assert len(composer.lists.layout([]).soft_positions) == 0


def test_nothing_learned_is_the_plain_list(inputs: Stage2Inputs) -> None:
    """Then what is injected is what stands there anyway."""
    begun = projected(inputs)
    composer, user = composed(begun), torch.randn(CF_SIZE)
    question, plain = composer.injected_titles(user, [1, 9], [2, 3]), composer.title_likelihood([1, 9], [2, 3])
    slots = torch.from_numpy(question.prompt.soft_positions)
    stands = embed_tokens(inputs.llm.model, torch.from_numpy(plain.prompt.token_ids)[slots])
    torch.testing.assert_close(question.prompt.soft_tokens, stands)
    expected = START.prior_share * inputs.model.title_log_probs[[2, 3]]
    assert np.allclose(question.held_against, expected)


@pytest.mark.parametrize(
    ("way", "key"), [("allmrec", "examples"), ("title_likelihood", "title_list"), ("title_injected", "title_list")]
)
def test_where_titles_are_cut_is_known_of_each_way(way: str, key: str) -> None:
    """So that titles alike once they are cut are told of, whichever way is the only one."""
    recipe = load_recipe("real-lm", [f"blend.ways=['{way}']"])
    (cut,) = Foundation._title_cuts.fget(SimpleNamespace(recipe=recipe))
    assert f".{key}.max_title_tokens" in cut


def test_the_loss_is_of_what_serving_says(inputs: Stage2Inputs) -> None:
    """Cross-entropy with the target, and the teacher's distribution, of the ranker's own logits."""
    near = projected(inputs, noise=0.3)
    config = TitleTokensConfig(examples=EXAMPLES, distillation=0.25, training_dtype="float32")
    batch = sampler_of(near, composed(near).lists.lengths, EXAMPLES, 0).batches(0)[0]

    def teach(users_B_D: torch.Tensor, _: object, candidates: list[torch.Tensor]) -> list[np.ndarray]:
        assert len(users_B_D) == len(candidates)
        return [np.arange(1, len(items) + 1) / sum(range(1, len(items) + 1)) for items in candidates]

    projector = near.model.title_projector
    loss = TitleTokensLoss(near, projector, composed(near), config, teach)(batch)
    histories = [near.split.train[user][:end] for user, end in zip(batch.users, batch.ends, strict=True)]
    users = Audience([near.split.user_ids[user] for user in batch.users], histories)
    logits = START.scale * torch.from_numpy(asyncio.run(scored(near, users, batch.items)))
    log_probs = logits.log_softmax(dim=1)
    targets = -log_probs[torch.arange(len(batch)), torch.from_numpy(batch.answers)]
    taught = -(log_probs * torch.arange(1, 6) / 15).sum(dim=1)
    torch.testing.assert_close(loss.double(), (0.75 * targets + 0.25 * taught).mean(), rtol=1e-4, atol=1e-4)


def test_lists_with_fewer_candidates_can_be_trained_on(inputs: Stage2Inputs) -> None:
    """Padding has no part in the loss, and no gradient that is not a number; one list's loss is its own."""
    near = projected(inputs, noise=0.3)
    projector = near.model.title_projector
    config = TitleTokensConfig(examples=EXAMPLES, distillation=0.5, training_dtype="float32")
    teach = collaborative_teacher(near.model, near.texts, 1.0)
    loss = TitleTokensLoss(near, projector, composed(near), config, teach)
    batch = sampler_of(near, composed(near).lists.lengths, EXAMPLES, 0).batches(0)[0].take(np.arange(2))
    batch.items[0] = np.where(np.arange(5) < 3, batch.items[0], 0)
    batch = replace(batch, answers=np.asarray([1, 3]))
    whole = loss(batch)
    parts = [loss(batch.take(np.asarray([row]))) for row in range(2)]
    torch.testing.assert_close(whole, torch.stack(parts).mean(), rtol=1e-4, atol=1e-4)
    whole.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in projector.parameters())
    assert projector.scale.grad.abs() > 0


def test_items_are_also_told_by_their_text(inputs: Stage2Inputs) -> None:
    """As unseen ones are served: the latest of a history by the flags of the example."""
    near = projected(inputs, noise=0.3)
    config = TitleTokensConfig(examples=EXAMPLES, distillation=0.0)
    loss = TitleTokensLoss(near, near.model.title_projector, composed(near), config, lambda *_: [])
    joints = loss._joints(np.asarray([4, 9, 17, 25]), np.asarray([True, False, True]))
    by_item, by_text = near.model.joint_item, near.model.joint_text
    torch.testing.assert_close(joints, torch.stack([by_item[4], by_text[9], by_item[17], by_text[25]]))
    short = loss._joints(np.asarray([25]), np.asarray([True, True, False]))
    torch.testing.assert_close(short, by_item[[25]])


def test_plain_and_injected_lists_share_a_pass(inputs: Stage2Inputs) -> None:
    """What each says does not depend on the other; a prompt without soft tokens has a table of its own."""
    near = projected(inputs, noise=0.3)
    composer, user = composed(near), torch.ones(CF_SIZE)
    asked = [composer.injected_titles(user, [1, 9], [2, 3]), composer.plain_titles([1, 9], [2, 3])]
    trees = [question.trie for question in asked]
    together = score_continuations(near.llm, [question.prompt for question in asked], trees)
    for question, tree, said in zip(asked, trees, together, strict=True):
        (alone,) = score_continuations(near.llm, [question.prompt], [tree])
        for ours, theirs in zip(said, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert not np.allclose(asked[0].log_probs(together[0]), asked[1].log_probs(together[1]), atol=1e-3)


def test_only_what_fits_is_told(inputs: Stage2Inputs) -> None:
    """Where the context cuts a list, tokens are of the items that are still shown."""
    composer = PromptComposer(inputs.model, inputs.prompt, inputs.llm.tokenizer, 90)
    layout = composer.lists.layout([1, 9, 17])
    assert 0 < layout.shown < 3
    assert layout.slot_ordinals.tolist() == [*range(3 - layout.shown, 3), 0]


def test_users_and_items_are_told_apart_by_what_is_injected(inputs: Stage2Inputs) -> None:
    """Another user, or other joint embeddings, change the answer; the LLM's weights get no gradient."""
    near = projected(inputs, noise=0.3)
    users, items = Audience(["", ""], [np.asarray([1, 9])] * 2), np.asarray([[2, 10, 18]] * 2)
    told = replace(users, vectors=torch.eye(2, CF_SIZE))
    first, second = asyncio.run(scored(near, told, items))
    assert not np.allclose(first, second, atol=1e-3)
    assert not any(weight.requires_grad for weight in inputs.llm.model.parameters())
    others = replace(near, model=replace(near.model, joint_item=near.model.joint_item.flip(0)))
    assert not np.allclose(first, asyncio.run(scored(others, told, items))[0], atol=1e-3)


def test_training_is_better_than_the_plain_list(inputs: Stage2Inputs, tmp_path: Path) -> None:
    """Titles of an LLM that knows nothing are at chance; what is injected makes it name the user's colour."""
    config = TitleTokensConfig(
        examples=EXAMPLES,
        distillation=0.0,
        learning_rate=3e-3,
        loop=LoopConfig(epochs=15, validate_every=5),
    )
    run = RunContext(tmp_path, QUIET)
    _, outcome = fit_title_tokens(inputs, TitleProjector(CF_SIZE, JOINT_SIZE, TOKEN_SIZE), config, run, None)
    start = next(record for record in outcome.curve if "ndcg@10" in record)
    assert start["step"] == 0
    assert outcome.best["ndcg@10"] > start["ndcg@10"] + 0.2


def stage(directory: Path, config: TitleTokensConfig) -> StageRun:
    return StageRun(directory, config, config.seed, {}, QUIET)


def test_a_stage_that_is_done_is_loaded_and_a_refit_keeps_what_was_chosen(inputs: Stage2Inputs, tmp_path: Path) -> None:
    """No steps keep the plain list, read as it was."""
    chosen = Chosen(prior_share=0.7, scale=0.2, temperature=2.0, steps=0)
    config = TitleTokensConfig(examples=EXAMPLES, chosen=chosen)
    projector = train_title_tokens(inputs, config, stage(tmp_path, config), tmp_path / "answers")
    assert (projector.prior_share.item(), projector.scale.item()) == pytest.approx((0.7, 0.2))
    assert not projector.user.output.weight.any()
    again = train_title_tokens(inputs, config, stage(tmp_path, config), tmp_path / "answers")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in projector.state_dict().items())


def test_how_the_plain_list_is_read_is_fitted() -> None:
    """Scale and share are found again from positives drawn by them."""
    rng = np.random.default_rng(0)
    likely, prior = rng.normal(size=(4000, 6)) * 5, rng.normal(size=(4000, 6)) * 3
    logits = 0.4 * (likely - 0.6 * prior) + rng.gumbel(size=likely.shape)
    first = np.argmax(logits, axis=1)
    rows = np.arange(len(first))
    for table in (likely, prior):
        table[rows, 0], table[rows, first] = table[rows, first].copy(), table[rows, 0].copy()
    assert read_plainly(likely, prior) == pytest.approx((0.4, 0.6), abs=0.04)
    assert read_plainly(-likely, prior) == (0.01, 1.0)


def test_a_bundle_without_projections_says_what_to_do(inputs: Stage2Inputs) -> None:
    with pytest.raises(BundleError, match="export"):
        composed(inputs).injected_titles(torch.zeros(CF_SIZE), [1], [2])
