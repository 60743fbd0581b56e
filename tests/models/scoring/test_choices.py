"""Choice scoring against brute force: constrained decoding over the full trie, node by node."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.scoring.choices import ChoiceTrie

END = 0
VOCABULARY = 6
Choices = list[list[int]]

# Five letters make shared starts, choices that begin another and equal choices the rule.
some_choices = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5), min_size=1, max_size=12)


def logits_after(path: tuple[int, ...]) -> np.ndarray:
    """What a language model might say after `path`: fixed random logits for every path."""
    return np.random.default_rng(zlib.crc32(bytes(path))).normal(scale=3.0, size=VOCABULARY)


def brute_force(choices: Choices) -> np.ndarray:
    """At every node of the full trie, a softmax over its children; equal choices share equally."""
    sequences = [(*choice, END) for choice in choices]
    probabilities = []
    for sequence in sequences:
        probability = 1.0 / sequences.count(sequence)
        for depth in range(len(sequence)):
            allowed = {other[depth] for other in sequences if other[:depth] == sequence[:depth]}
            weights = {token: np.exp(logits_after(sequence[:depth])[token]) for token in allowed}
            probability *= weights[sequence[depth]] / sum(weights.values())
        probabilities.append(probability)
    return np.asarray(probabilities)


def ask(trie: ChoiceTrie) -> list[np.ndarray]:
    """The answers of that language model to a trie's questions."""
    return [logits_after(branch.path)[branch.children] for branch in trie.branches]


@given(some_choices)
@example([[1]])
@example([[1], [1]])
@example([[1, 2], [1, 2, 3], [1, 2, 3, 4]])
@example([[1, 2, 3], [1, 2, 4], [2], [1, 2, 3]])
def test_equals_brute_force_over_the_full_trie(choices: Choices):
    trie = ChoiceTrie(choices, END)
    assert np.exp(trie.log_probs(ask(trie))) == pytest.approx(brute_force(choices), rel=1e-9)


@given(some_choices)
def test_probabilities_sum_to_one(choices: Choices):
    trie = ChoiceTrie(choices, END)
    assert np.exp(trie.log_probs(ask(trie))).sum() == pytest.approx(1.0)


@given(some_choices, st.floats(-50, 50))
def test_logits_and_log_probabilities_serve_alike(choices: Choices, shift: float):
    """Engines may give logits or log-probabilities over any vocabulary: a constant per node changes nothing."""
    trie = ChoiceTrie(choices, END)
    shifted = [logits + shift * (1 + index) for index, logits in enumerate(ask(trie))]
    assert trie.log_probs(shifted) == pytest.approx(trie.log_probs(ask(trie)), abs=1e-9)


@given(some_choices, st.randoms(use_true_random=False))
def test_the_order_of_the_choices_does_not_matter(choices: Choices, random):
    order = list(range(len(choices)))
    random.shuffle(order)
    trie, shuffled = ChoiceTrie(choices, END), ChoiceTrie([choices[index] for index in order], END)
    assert shuffled.log_probs(ask(shuffled)) == pytest.approx(trie.log_probs(ask(trie))[order], abs=1e-9)


@given(some_choices)
def test_only_branching_nodes_are_asked_for(choices: Choices):
    """Every branch has two children or more, and none lies below a choice's own end."""
    trie = ChoiceTrie(choices, END)
    assert all(len(branch.children) >= 2 for branch in trie.branches)
    assert all(END not in branch.path for branch in trie.branches)
    assert len({branch.path for branch in trie.branches}) == len(trie.branches) <= max(0, len(choices) - 1)


def test_equal_choices_share_their_mass_by_score():
    """Two of the same text: their common 0.25 is split 1 to 3 by scores ln 1 and ln 3."""
    trie = ChoiceTrie([[1], [2], [1]], END)
    answers = [np.log([0.25, 0.75])]
    shares = np.exp(trie.log_probs(answers, tie_scores=np.log([1.0, 100.0, 3.0])))
    assert shares == pytest.approx([0.0625, 0.75, 0.1875])


def test_a_worked_example():
    """`a`, `a b` and `c`: the root chooses a:c = 3:1, then the end or b = 1:4."""
    trie = ChoiceTrie([[1], [1, 2], [3]], END)
    assert [(branch.path, branch.children.tolist()) for branch in trie.branches] == [((), [1, 3]), ((1,), [END, 2])]
    log_probs = trie.log_probs([np.log([3.0, 1.0]), np.log([1.0, 4.0])])
    assert np.exp(log_probs) == pytest.approx([0.75 * 0.2, 0.75 * 0.8, 0.25])


def test_extreme_logits_stay_finite():
    trie = ChoiceTrie([[1], [2]], END)
    assert trie.log_probs([np.asarray([-1e4, 1e4])]) == pytest.approx([-2e4, 0.0])


def test_no_choice_is_no_question():
    with pytest.raises(ValueError, match="at least one"):
        ChoiceTrie([], END)
