"""Training prompts are the product's own prompts, with answers that are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain import DOMAINS
from models.llm.law import in_series
from models.llm.loading import load_tokenizer
from models.prompts.layout import Slot
from models.prompts.template import PromptConfig, PromptTemplate
from models.prompts.titles import encode_plain
from models.scoring.choices import ChoiceTrie
from training.pretraining.architecture import Architecture, build_interface
from training.pretraining.mixture import Mixture
from training.pretraining.preferences import draw_preferences
from training.pretraining.prompts import PromptFactory

CONTEXT = 1152


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def interface():
    return build_interface(Architecture(), 0)


@pytest.fixture(scope="module")
def factory(tokenizer, interface):
    return PromptFactory(tokenizer, interface, CONTEXT, titles=300)


def draw(factory, count, seed=0, **mixture):
    rng = np.random.default_rng(seed)
    return [factory.draw(rng, Mixture(**mixture)) for _ in range(count)]


def test_preferences_obey_the_law():
    """Log-probabilities are the log softmax of coupling * (<u, z> + <mean y of the history, y> + p + w * s)."""
    similar, popular, of_series = [], [], []
    series = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    for seed in range(30):
        drawn = draw_preferences(np.random.default_rng(seed), 56, 24, series, history=4, coupling=0.25)
        matches = 0.25 * drawn.candidates[:, :56] @ drawn.user[:56]
        similarities = 0.25 * drawn.candidates[:, 56:80] @ drawn.history[:, 56:80].mean(axis=0)
        popularity, serial = 0.25 * drawn.candidates[:, 80], 0.25 * drawn.user[56] * series
        logits = matches + similarities + popularity + serial
        np.testing.assert_allclose(np.exp(drawn.log_probs), np.exp(logits) / np.exp(logits).sum(), rtol=1e-9)
        assert drawn.history.shape == (4, 81)
        for counted, part in ((similar, similarities), (popular, popularity), (of_series, serial)):
            counted.append(part.std() > 0.1 * logits.std())
    for counted in (similar, popular, of_series):
        assert 5 <= sum(counted) <= 25


def test_sharpness_is_the_median_spread_of_logits():
    """Half of the draws spread their logits more than `sharpness`, half less."""
    rng = np.random.default_rng(0)
    draws = [draw_preferences(rng, 56, 24, np.zeros(20), 0, 0.25) for _ in range(400)]
    assert np.median([drawn.log_probs.std() for drawn in draws]) == pytest.approx(2.5, rel=0.12)


@pytest.mark.parametrize(("sharpness", "genres", "expected"), [(2.5, 0.0, 2.5), (1.0, 0.0, 1.0), (1.0, 1.0, 0.6)])
def test_prompts_are_as_sharp_as_asked_for(factory, sharpness, genres, expected):
    """A mixture's sharpness is its prompts' median spread; genre prompts have three fifths of it."""
    mixture = {"sharpness": sharpness, "genres": genres, "explanations": 0.0, "series": 0.0}
    examples = draw(factory, 300, **mixture, candidates=(18, 18))
    assert np.median([example.preferences.log_probs.std() for example in examples]) == pytest.approx(expected, rel=0.15)


def test_candidates_continue_series_of_the_history(factory):
    """In prompts that know their history, some candidates begin as a title of it, and some only by one token."""
    examples = draw(factory, 200, genres=0.0, explanations=0.0, series=1.0, title_tokens=8)
    shown = [e for e in examples if len(e.preferences.history)]
    weighed = [e for e in shown if abs(e.preferences.user[-1]) > 0]
    assert 0.5 * len(shown) < len(weighed) < 0.9 * len(shown)
    counts = [[_series_of(e), _only_first(e)] for e in shown]
    series, first = np.sum(counts, axis=0)
    candidates = sum(len(e.layout.choices) for e in shown)
    assert 0.03 < series / candidates < 0.3
    assert first > 10


def _titles_shown(example):
    ids = example.layout.token_ids.tolist()
    slots = example.layout.soft_positions[example.layout.slot_kinds == Slot.HISTORY]
    (quote,) = encode_plain(load_tokenizer("embedded"), [' "'])[0]
    return [ids[_last(ids, quote, slot) + 1 : slot - 1] for slot in slots.tolist()]


def _series_of(example):
    np.testing.assert_array_equal(example.preferences.series, in_series(_titles_shown(example), example.layout.choices))
    return int(example.preferences.series.sum())


def _only_first(example):
    known = {title[0] for title in _titles_shown(example)}
    return sum(choice[0] in known for choice in example.layout.choices) - _series_of(example)


def test_prompts_are_built_by_the_template(factory, tokenizer):
    """Decoded, a prompt reads as the template writes it in one of the domains, its titles quoted."""
    openings = {f' is a user representation. This user has {domain.past} "' for domain in DOMAINS.values()}
    seen = set()
    for example in draw(factory, 60, genres=0.0, explanations=0.0, history=5):
        if (example.layout.slot_kinds == Slot.HISTORY).any():
            text = tokenizer.decode(example.layout.token_ids[2:])
            seen |= {opening for opening in openings if text.startswith(opening)}
            assert text.endswith('. The recommendation is "')
    assert seen == openings


def test_a_prompt_equals_one_that_serving_would_build(factory, tokenizer):
    """Rebuilt by a fresh template from its own titles, a prompt has the same tokens and slots."""
    domains = [PromptTemplate(tokenizer, PromptConfig(domain=d, history_items=20), CONTEXT) for d in DOMAINS.values()]
    example = next(e for e in draw(factory, 50, genres=0.0, explanations=0.0) if len(e.layout.choices) > 5)
    slots = example.layout.soft_positions[example.layout.slot_kinds == Slot.HISTORY]
    ids = example.layout.token_ids.tolist()
    (quote,) = encode_plain(tokenizer, [' "'])[0]
    history = [ids[_last(ids, quote, slot) + 1 : slot - 1] for slot in slots.tolist()]
    rebuilt = [template.recommend(history, example.layout.choices) for template in domains]
    assert any(
        np.array_equal(layout.token_ids, example.layout.token_ids)
        and np.array_equal(layout.soft_positions, example.layout.soft_positions)
        for layout in rebuilt
    )


def _last(ids, token, before):
    return max(index for index in range(before) if ids[index] == token)


def test_injected_tokens_follow_the_interface(factory, interface):
    """A candidate's token without its type gives back the true logit with the user's, the history's and the titles."""
    example = next(
        example
        for example in draw(factory, 100, genres=0.0, explanations=0.0)
        if len(example.preferences.history)
        and _series_of(example)
        and example.preferences.user[-1]
        and example.preferences.history[:, 88].any()
    )
    kinds = torch.from_numpy(example.layout.slot_kinds)
    coordinates = example.soft_tokens - interface.slot_types[kinds]
    user = coordinates[kinds == Slot.USER] @ torch.linalg.pinv(interface.user_basis)
    items = coordinates[kinds == Slot.CANDIDATE] @ torch.linalg.pinv(interface.item_basis)
    likeness = torch.linalg.pinv(interface.similarity_basis)
    similar = coordinates[kinds == Slot.CANDIDATE] @ likeness @ (coordinates[kinds == Slot.HISTORY] @ likeness).mean(0)
    popularity = coordinates[kinds == Slot.CANDIDATE] @ torch.linalg.pinv(interface.popularity_axis[None])
    weight = coordinates[kinds == Slot.USER] @ torch.linalg.pinv(interface.series_axis[None])
    series = torch.from_numpy(example.preferences.series).float()
    logits = interface.coupling * (items @ user[0] + similar + popularity[:, 0] + weight[0] * series)
    torch.testing.assert_close(
        torch.log_softmax(logits, 0), torch.from_numpy(example.preferences.log_probs).float(), atol=1e-3, rtol=1e-3
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_node_targets_multiply_to_the_true_distribution(factory, seed):
    """Constrained decoding by the targets gives each candidate its true probability."""
    example = draw(factory, 1, seed=seed, explanations=0.0)[0]
    targets, reach = example.node_targets()
    read = example.trie.log_probs([np.log(np.maximum(target, 1e-300)) for target in targets])
    np.testing.assert_allclose(np.exp(read), np.exp(example.preferences.log_probs), atol=1e-9)
    assert reach[0] == pytest.approx(1.0)


def test_the_mixture_is_kept(factory):
    """Sizes stay within the mixture, titles within 16 tokens, prompts within the context."""
    examples = draw(factory, 300)
    for example in examples:
        assert len(example.layout.token_ids) < CONTEXT
        if not example.text:
            assert 5 <= len(example.layout.choices) <= 30
            assert (example.layout.slot_kinds == Slot.HISTORY).sum() <= 20
            assert len({tuple(choice) for choice in example.layout.choices}) == len(example.layout.choices)
            assert max(map(len, example.layout.choices)) <= 16
    branching = [len(example.trie.branches) for example in examples if not example.text]
    assert np.mean([count > 1 for count in branching]) > 0.3


def test_an_explanation_names_the_titles_shown(factory, tokenizer):
    """The sentence chains the history's titles in order and then ends the text."""
    examples = draw(factory, 20, explanations=1.0, title_tokens=16)
    for example in examples:
        ids = example.layout.token_ids
        sentence = tokenizer.decode(ids[-example.written :])
        prompt = tokenizer.decode(ids[: -example.written])
        shown = prompt.split(" in the previous.")[0].split('"')[1::2]
        assert sentence == " " + " and ".join(f'"{title}"' for title in shown) + ".</s>"
        assert prompt.endswith(tuple(f'", because this user has {domain.past}' for domain in DOMAINS.values()))


def test_an_answer_is_one_of_the_choices_drawn_from_the_truth(factory, tokenizer):
    """The prompt is that of the same preferences without its answer; likely choices come more often."""
    surprise, entropy = [], []
    for seed in range(40):
        (asked,) = draw(factory, 1, seed=seed, explanations=0.0)
        (written,) = draw(factory, 1, seed=seed, explanations=0.0, answers=1.0)
        length = len(asked.layout.token_ids)
        assert np.array_equal(written.layout.token_ids[:length], asked.layout.token_ids)
        assert torch.equal(written.soft_tokens, asked.soft_tokens)
        assert (len(asked.trie.branches) > 0, len(written.trie.branches)) == (True, 0)
        assert written.written == len(written.layout.token_ids) - length
        ids = written.layout.token_ids[length:].tolist()
        assert tokenizer.decode(ids[-3:]) == '".</s>'
        answer = asked.layout.choices.index(ids[:-3])
        surprise.append(-asked.preferences.log_probs[answer])
        entropy.append(-np.exp(asked.preferences.log_probs) @ asked.preferences.log_probs)
    assert np.mean(surprise) == pytest.approx(np.mean(entropy), abs=0.5)


def test_titles_can_begin_other_titles(factory):
    """Among random titles some are the beginning of another; the trie keeps them apart by the closing quote."""
    found = 0
    for example in draw(factory, 60, explanations=0.0, genres=0.0):
        titles = [tuple(choice) for choice in example.layout.choices]
        found += any(a != b and a == b[: len(a)] for a in titles for b in titles)
        assert len(set(ChoiceTrie(titles, 5).groups)) == len(titles)
    assert found > 0
