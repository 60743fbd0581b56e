"""What is measured of an LM, by hand and by stand-ins."""

import numpy as np
import pytest
import torch

from models.llm.loading import load_llm
from models.prompts.titles import encode_plain
from models.scoring.score import score_prompts
from tests.training.pretraining.conftest import SHORT
from training.pretraining.evaluate import compare, measure, measure_writing
from training.pretraining.mixture import Mixture
from training.pretraining.pretrain import draw


def test_a_model_that_tells_the_truth_measures_as_bayes(factory):
    """Accuracy equals Bayes, divergence is nil: measured on a stand-in whose child logits are the truth."""
    examples = [example for example in draw(factory, SHORT, 20, seed=3) if len(example.trie.branches) == 1]
    for example in examples:
        record = compare(example.preferences.log_probs, example.trie.log_probs([np.log(example.node_targets()[0][0])]))
        assert record["accuracy"] == pytest.approx(record["bayes"])
        assert record["kl"] == pytest.approx(0.0, abs=1e-9)
        assert record["rank"] == pytest.approx(1.0)


def test_the_nodes_divergences_add_up(constructed, factory):
    """By how many tokens lead to them, they are all of the rankings' divergence."""
    result = measure(constructed, draw(factory, Mixture(explanations=0.0), 30, seed=8))
    parts = [found for name, found in result.items() if name.startswith("nodes after")]
    assert len(parts) == 3
    total = result["all"]["kl"] * result["all"]["prompts"]
    assert sum(part["kl"] * part["prompts"] for part in parts) == pytest.approx(total, rel=1e-4)


def test_compare_by_hand():
    """Two of three candidates swapped."""
    record = compare(np.log([0.5, 0.3, 0.2]), np.log([0.3, 0.5, 0.2]))
    assert record["accuracy"] == pytest.approx(0.3)
    assert record["bayes"] == pytest.approx(0.5)
    assert record["kl"] == pytest.approx(0.5 * np.log(5 / 3) + 0.3 * np.log(3 / 5))
    assert record["rank"] == pytest.approx(0.5)


@pytest.mark.parametrize(("place", "named"), [(0, (1.0, 1.0)), (-1, (1.0, 0.0)), (None, (0.0, 0.0))])
def test_writing_counts_what_is_named(factory, tokenizer, monkeypatch, place, named):
    """An LM that writes the choice it ranks first, the one it ranks last, or the first without its end."""
    llm = load_llm("embedded")
    examples = draw(factory, SHORT, 4, seed=3)
    ((close_quote,),) = encode_plain(tokenizer, ['"'])
    left = iter(examples)

    def write(inputs_embeds, **_):
        example = next(left)
        assert inputs_embeds.shape[1] == len(example.layout.token_ids)
        (logits,) = score_prompts(llm, [example.layout.fill(example.soft_tokens)], [example.trie])
        ranked = np.argsort(-example.trie.log_probs(logits))
        return torch.tensor([[*example.layout.choices[ranked[place or 0]], *([] if place is None else [close_quote])]])

    monkeypatch.setattr(llm.model, "generate", write)
    measured = measure_writing(llm.model, examples, close_quote)
    assert (measured["names_choice"], measured["names_first"]) == named
