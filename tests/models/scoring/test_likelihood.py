"""How likely strings are, against plain loops: one forward pass a string and the softmax over the whole vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.llm.loading import LanguageModel, load_llm
from models.prompts.layout import Prompt
from models.scoring import likelihood
from models.scoring.likelihood import ContinuationTree
from models.scoring.score import score_prompts
from tests.models.engines.hosting import Reference, make_prompt

STRINGS = [[10, 11, 12, 5], [10, 11, 13, 5], [10, 11, 12, 5], [10, 14, 5], [10], [20, 11, 12, 5], [30, 5]]


@pytest.fixture(scope="module")
def llm(checkpoint: Path) -> LanguageModel:
    return load_llm(str(checkpoint))


def token_log_probs(llm: LanguageModel, prompts: list[Prompt], strings: list[Any]) -> list[list[np.ndarray]]:
    trees = [ContinuationTree(of_prompt) for of_prompt in strings]
    scores = score_prompts(llm, prompts, trees)
    return [tree.token_log_probs(branches) for tree, branches in zip(trees, scores, strict=True)]


def test_likelihoods_equal_plain_loops(llm: LanguageModel, reference: Reference):
    """Shared beginnings, equal strings, one that begins others; prompts of several lengths in one pass."""
    prompts = [make_prompt(length, min(length, 2), seed=length) for length in (1, 30, 7)]
    strings = [STRINGS, STRINGS[:1], STRINGS[3:]]
    found = token_log_probs(llm, prompts, strings)
    for prompt, of_prompt, values in zip(prompts, strings, found, strict=True):
        for string, of_string in zip(of_prompt, values, strict=True):
            assert of_string == pytest.approx(reference.token_log_probs(prompt, string), abs=1e-4)


def test_they_are_summed(llm: LanguageModel, reference: Reference):
    """log P of a string is that of its tokens, one after the other."""
    prompt, tree = make_prompt(9), ContinuationTree(STRINGS)
    found = tree.log_probs(score_prompts(llm, [prompt], [tree])[0])
    assert found == pytest.approx([reference.token_log_probs(prompt, string).sum() for string in STRINGS], abs=1e-3)


def test_all_one_token_strings_share_a_probability_of_one(llm: LanguageModel):
    tree = ContinuationTree([[token] for token in range(320)])
    assert np.exp(tree.log_probs(score_prompts(llm, [make_prompt(12)], [tree])[0])).sum() == pytest.approx(1.0)


def test_few_logits_at_a_time_change_nothing(llm: LanguageModel, monkeypatch: pytest.MonkeyPatch):
    """Blocks of a single place: memory is bounded without touching the figures."""
    tree = ContinuationTree(STRINGS)
    whole = tree.log_probs(score_prompts(llm, [make_prompt(9)], [tree])[0])
    monkeypatch.setattr(likelihood, "BLOCK_LOGITS", 1)
    assert tree.log_probs(score_prompts(llm, [make_prompt(9)], [tree])[0]) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("strings", [[], [[1], []]])
def test_nothing_cannot_follow(strings: list[list[int]]):
    with pytest.raises(ValueError, match="string"):
        ContinuationTree(strings)


def test_gemma_3_is_exact_beyond_its_window():
    """Windows of 8 tokens, prompts of 40, scaled embeddings, a tied head: as its own forward says."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    model = Gemma3ForCausalLM(config).eval()
    prompt = Prompt(np.arange(5, 45), np.zeros(0, dtype=np.int64), torch.zeros(0, 32))
    tree = ContinuationTree(STRINGS)
    found = tree.token_log_probs(
        likelihood.score_continuations(LanguageModel("", model, None, "", None), [prompt], [tree])[0]
    )
    for string, values in zip(STRINGS, found, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt.token_ids, *string]])).logits[0].double()
        places = logits[len(prompt.token_ids) - 1 : -1].log_softmax(1)
        assert values == pytest.approx(places[range(len(string)), string].numpy(), abs=1e-3)


def test_a_smaller_vocabulary_is_all_that_could_follow(llm: LanguageModel, reference: Reference):
    """log softmax over those tokens alone; with all of them as over the whole; a string beyond them is refused."""
    prompt, vocabulary = make_prompt(14), np.asarray([5, 10, 11, 12, 13, 14, 20, 30, 200])
    tree = ContinuationTree(STRINGS, vocabulary)
    found = tree.token_log_probs(score_prompts(llm, [prompt], [tree])[0])
    for string, values in zip(STRINGS, found, strict=True):
        for depth, value in enumerate(values):
            with torch.inference_mode():
                logits = reference.model(inputs_embeds=reference.embed(prompt, string[:depth])).logits[0, -1].double()
            among = logits[vocabulary].log_softmax(0)
            assert value == pytest.approx(float(among[list(vocabulary).index(string[depth])]), abs=1e-4)
    everything = ContinuationTree(STRINGS, np.arange(320))
    whole = ContinuationTree(STRINGS)
    scores = score_prompts(llm, [prompt, prompt], [everything, whole])
    assert everything.log_probs(scores[0]) == pytest.approx(whole.log_probs(scores[1]), abs=1e-4)
    with pytest.raises(ValueError, match="vocabulary"):
        ContinuationTree(STRINGS, vocabulary[:-2])
