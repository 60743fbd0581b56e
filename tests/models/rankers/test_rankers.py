"""The behaviour suite on every ranker of the package, and what each ranks by."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.backbones import represent_all
from models.composer import PromptComposer
from models.engines.base import LLMEngine
from models.engines.transformers import in_process
from models.llm.law import TokenLaw
from models.prompts.layout import Injection
from models.prompts.template import PromptConfig
from models.prompts.titles import encode_plain
from models.rankers.base import Audience, Ranker
from models.rankers.collaborative import CollaborativeRanker
from models.rankers.llm import LLMRanker
from models.rankers.simple import PopularityRanker, RandomRanker
from models.rankers.title_likelihood import InjectedTitleRanker, TitleLikelihoodRanker, TitlePriorRanker, title_priors
from models.rankers.tokens import TokenRanker
from models.rankers.user_encoder import UserEncoderRanker
from tests.models.rankers.suite import RankerSuite, scored
from tests.tiny import tiny_contents, tiny_head, tiny_llm, tiny_split, tiny_title_projector
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut


class PerCall:
    """An engine that starts for every question asked of it: each test of the suite has an event loop of its own."""

    def __init__(self, interface: bool) -> None:
        self.llm = tiny_llm(interface)

    async def score(self, *question: object) -> list[np.ndarray]:
        async with in_process(self.llm) as engine:
            return await engine.score(*question)

    async def encode(self, *question: object) -> np.ndarray:
        async with in_process(self.llm) as engine:
            return await engine.encode(*question)


def make(name: str) -> Ranker:
    split, llm = tiny_split(), tiny_llm(interface=True)
    priors = np.linspace(0.0, -3.0, 31, dtype=np.float32)
    model = replace(
        tiny_contents(split), user_head=tiny_head(), title_projector=tiny_title_projector(), title_log_probs=priors
    )
    composer = PromptComposer(model, PromptConfig(), llm.tokenizer, llm.context_length)
    engine: LLMEngine = PerCall(interface=True)
    rankers = {
        "random": RandomRanker(),
        "popularity": PopularityRanker(split.catalogue.interactions),
        "sasrec": CollaborativeRanker("sasrec", "SASRec", model.backbone),
        "decoded": CollaborativeRanker("decoded", "Decoded", model.backbone, model.cf_vectors.flip(1)),
        "tokens": TokenRanker("tokens", "Tokens", composer.model, TokenLaw.of(llm.interface, composer.titles, 10)),
        "allmrec": LLMRanker("allmrec", "A-LLMRec", engine, composer),
        "llm_only": LLMRanker("llm_only", "LLM-Only", engine, composer, injection=Injection.NONE),
        "allmrec_text": LLMRanker("allmrec_text", "Texts", engine, composer, text_only=True),
        "title_likelihood": TitleLikelihoodRanker(engine, composer),
        "title_injected": InjectedTitleRanker(engine, composer),
        "title_prior": TitlePriorRanker(priors),
        "user_encoder": UserEncoderRanker(engine, composer),
    }
    return rankers[name]


@pytest.mark.parametrize(
    "name",
    [
        "random",
        "popularity",
        "sasrec",
        "decoded",
        "tokens",
        "allmrec",
        "llm_only",
        "allmrec_text",
        "title_likelihood",
        "title_injected",
        "title_prior",
        "user_encoder",
    ],
)
class TestEveryRanker(RankerSuite):
    @pytest.fixture
    def ranker(self, name: str) -> Ranker:
        return make(name)


def test_the_backbone_ranks_by_inner_products() -> None:
    """x_u . E_i, in NumPy."""
    split = tiny_split()
    model = tiny_contents(split)
    held_out = HeldOut.of(split, Holdout.TEST, users=3)
    users = represent_all(model.backbone, held_out.users.histories).numpy()
    table = model.backbone.item_vectors.detach().numpy()
    expected = np.einsum("ed,ecd->ec", users, table[held_out.candidates.items])
    ranker = CollaborativeRanker("sasrec", "SASRec", model.backbone)
    np.testing.assert_allclose(scored(ranker, held_out.users, held_out.candidates.items), expected, rtol=1e-4)


def test_popularity_counts_interactions() -> None:
    """More of them are always better; equal counts are told apart, differently for different users."""
    ranker = PopularityRanker(np.array([0, 5, 5, 5, 9, 0]))
    users = Audience(["a", "b"] * 50, [np.array([user]) for user in range(100)])
    logits = scored(ranker, users, np.tile(np.arange(1, 6), (100, 1)))
    assert (logits[:, 3] > logits[:, :3].max(axis=1)).all()
    assert (logits[:, :3].min(axis=1) > logits[:, 4]).all()
    assert set(logits[:, :3].argmax(axis=1)) == {0, 1, 2}


def test_random_numbers_are_even() -> None:
    """Of 20 candidates each is first about as often as any other, over 4,000 users: 200 times, give or take 5 sigma."""
    users = Audience([""] * 4000, [np.array([user, 7]) for user in range(4000)])
    logits = scored(RandomRanker(seed=3), users, np.tile(np.arange(1, 21), (4000, 1)))
    counts = np.bincount(logits.argmax(axis=1), minlength=20)
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)


def test_the_llm_ranks_by_the_probability_of_titles() -> None:
    """Log-probabilities: they sum to one over a user's real candidates."""
    split, llm = tiny_split(), tiny_llm()
    model = tiny_contents(split)
    held_out = HeldOut.of(split, Holdout.TEST, users=6)
    items = held_out.candidates.items.copy()
    items[0, 15:] = 0
    composer = PromptComposer(model, PromptConfig(), llm.tokenizer, llm.context_length)

    async def score() -> np.ndarray:
        async with in_process(llm) as engine:
            return await LLMRanker("llm", "LLM", engine, composer).score(held_out.users, items)

    logits = asyncio.run(score())
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1.0, atol=1e-6)


def test_the_positive_stands_anywhere_in_the_prompt() -> None:
    """Column 0 of the candidates is not the first title of the prompt, or position would leak the answer."""
    split, llm = tiny_split(), tiny_llm()
    model = tiny_contents(split)
    composer = PromptComposer(model, PromptConfig(), llm.tokenizer, llm.context_length)
    held_out = HeldOut.of(split, Holdout.TEST)
    places = [
        int(np.flatnonzero(composer.recommend(torch.zeros(8), [], items).order == 0)[0])
        for items in held_out.candidates.items
    ]
    assert len(set(places)) > 10


def test_the_user_encoder_ranks_by_inner_products_with_what_its_head_makes_of_a_state() -> None:
    """By hand: a plain forward pass over the list's text, the head, and a product with every item's vector."""
    split, llm = tiny_split(), tiny_llm(interface=True)
    model = replace(tiny_contents(split), user_head=tiny_head())
    held_out = HeldOut.of(split, Holdout.TEST, users=4)
    logits = scored(make("user_encoder"), held_out.users, held_out.candidates.items)
    assert logits.std() > 0.01
    for row, history in enumerate(held_out.users.histories):
        titles = [split.catalogue.titles[item] for item in history[-10:]]
        text = 'A list of titles that the same person bought: "' + "".join(f'{title}", "' for title in titles)
        ids = torch.tensor([[llm.tokenizer.bos_token_id, *llm.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.inference_mode():
            state = llm.model(ids, output_hidden_states=True).hidden_states[-1][:, -1]
            expected = model.cf_vectors[held_out.candidates.items[row]] @ model.user_head(state)[0]
        np.testing.assert_allclose(logits[row], expected.numpy(), atol=1e-4)


def plain_log_prob(llm, text: str, title: str, tokens: int) -> float:
    """log P of the first `tokens` tokens of `title` and its closing quote after `text`, one forward pass a token."""
    ids, total = [llm.tokenizer.bos_token_id, *encode_plain(llm.tokenizer, [text])[0]], 0.0
    between = encode_plain(llm.tokenizer, ['", "'])[0]
    for token in [*encode_plain(llm.tokenizer, [title])[0], between[0]][:tokens]:
        with torch.inference_mode():
            total += float(llm.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)[token])
        ids.append(token)
    return total


def test_titles_are_as_likely_as_plain_loops_say() -> None:
    """After the history's titles for the ranker, after nothing for the constants of the bundle."""
    split, llm = tiny_split(), tiny_llm()
    composer = PromptComposer(tiny_contents(split), PromptConfig(), llm.tokenizer, llm.context_length)
    held_out = HeldOut.of(split, Holdout.TEST, users=2)
    ranker = TitleLikelihoodRanker(PerCall(interface=False), composer)
    found = scored(ranker, held_out.users, held_out.candidates.items[:, :3])
    titles = split.catalogue.titles
    for row, history in enumerate(held_out.users.histories):
        listed = "".join(f'{titles[item]}", "' for item in history)
        for column, item in enumerate(held_out.candidates.items[row, :3]):
            expected = plain_log_prob(llm, f'A list of titles that the same person bought: "{listed}', titles[item], 40)
            assert found[row, column] == pytest.approx(expected, abs=1e-3)
    priors = asyncio.run(title_priors(PerCall(interface=False), composer))
    assert priors[0] == 0
    for item in (1, 17, 30):
        expected = plain_log_prob(llm, 'Here is a list of titles: "', titles[item], 40)
        assert priors[item] == pytest.approx(expected, abs=1e-3)
