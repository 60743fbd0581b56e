"""The packed tree forward against one plain forward pass for each node of the full trie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from models.llm.loading import LanguageModel, load_llm
from models.prompts.titles import encode_plain
from models.scoring.choices import ChoiceTrie
from models.scoring.opt_inference import OPTScorer
from models.scoring.packing import pack
from models.scoring.score import score_packed, score_prompts
from tests.models.engines.hosting import END, FIRST_TOKEN, VOCABULARY, Reference, make_prompt

tokens = st.integers(END + 1, END + 5) | st.integers(FIRST_TOKEN + 3, VOCABULARY - 1)
some_choices = st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=6)
lengths = st.integers(1, 40)


@pytest.fixture(scope="module")
def llm(checkpoint: Path) -> LanguageModel:
    return load_llm(str(checkpoint))


def scores(llm: LanguageModel, prompts, choice_lists, score=score_prompts) -> list[np.ndarray]:
    tries = [ChoiceTrie(choices, END) for choices in choice_lists]
    return [trie.log_probs(logits) for trie, logits in zip(tries, score(llm, prompts, tries), strict=True)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(lengths, some_choices), min_size=1, max_size=3))
@example([(1, [[7]]), (5, [[7], [7, 8]])])
@example([(30, [[7, 8], [7, 8]]), (1, [[7, 8, 9], [7, 8], [7]])])
def test_packed_scores_equal_brute_force(llm: LanguageModel, reference: Reference, questions):
    """Batches of any prompts and choices, by OPT's own pass and by the one for any LLM: as decoded alone, in full."""
    prompts = [make_prompt(length, min(length, 2), seed=length) for length, _ in questions]
    choice_lists = [choices for _, choices in questions]
    assert OPTScorer.supports(llm.model)
    found = scores(llm, prompts, choice_lists, score_prompts), scores(llm, prompts, choice_lists, score_packed)
    for prompt, choices, *both in zip(prompts, choice_lists, *found, strict=True):
        expected = reference.log_probs(prompt, choices)
        assert both[0] == pytest.approx(expected, abs=1e-4)
        assert both[1] == pytest.approx(expected, abs=1e-4)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4))
@example(["Amélie", "Amélie 2", "千と千尋の神隠し", "千と千尋の神隠し", "🎬"])
def test_titles_in_any_script_score_as_brute_force(llm: LanguageModel, reference: Reference, titles: list[str]):
    """Several choices may share the first bytes of one character."""
    choices = encode_plain(llm.tokenizer, titles)
    prompt = make_prompt(20)
    assert scores(llm, [prompt], [choices])[0] == pytest.approx(reference.log_probs(prompt, choices), abs=1e-4)


def test_bf16_stays_close_to_fp32(checkpoint: Path, llm: LanguageModel):
    """Half precision moves a log-probability by some hundredths, not more."""
    half = load_llm(str(checkpoint), dtype=torch.bfloat16)
    prompt, choices = make_prompt(60), [[7], [8, 9], [8, 10], [11]]
    assert scores(half, [prompt], [choices])[0] == pytest.approx(scores(llm, [prompt], [choices])[0], abs=0.3)


def test_a_tree_token_sees_its_ancestors_and_no_sibling():
    """Choices 7 8 x, 7 9 x and 7 9: the tree tokens are 7, 8, 9 at columns 2, 3, 4 behind a prompt of two."""
    trie = ChoiceTrie([[7, 8, 1], [7, 8, 2], [7, 9, 1], [7, 9]], END)
    packed = pack([np.asarray([3, 4])], [np.zeros(0, dtype=np.int64)], [trie])
    assert packed.token_ids_B_L.tolist() == [[3, 4, 7, 8, 9]]
    assert packed.position_ids_B_L.tolist() == [[0, 1, 2, 3, 3]]
    assert packed.visible_B_L_L[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 1],
    ]
    assert packed.node_columns.tolist() == [2, 3, 4]
