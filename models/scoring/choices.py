"""Choice scoring: the log-probability of each of C strings under decoding constrained to those C.

With the token trie of the choices, `log P(choice) = sum over the branching nodes on its path of log softmax
restricted to that node's children`. A node with one child costs nothing, so an engine only has to look at the few
branching nodes; all are known up front and share the prompt as prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

ROOT = -1


@dataclass(frozen=True)
class Branch:
    """A trie node with two or more children.

    Attributes:
        path: tokens from the end of the prompt to this node; empty for the root.
        children: (C,) token ids among which the constrained decoder chooses here, increasing.
    """

    path: tuple[int, ...]
    children: np.ndarray


class Branching(Protocol):
    """What an LLM is asked of a prompt: how likely tokens are at some places behind it.

    Attributes:
        normalised: whether log-probabilities are asked for, or logits of any zero.
        vocabulary: (V',) int64 the tokens over which log-probabilities are; None: over the LLM's whole vocabulary.
        branches: the places with the tokens that may follow there, parents before children.
    """

    normalised: ClassVar[bool]
    vocabulary: np.ndarray | None
    branches: list[Branch]


class ChoiceTrie:
    """The token trie of C choices.

    Args:
        choices: C token sequences, none empty. Equal sequences are one choice that shares its mass.
        end_token: ends every choice, so that a choice that begins another is still a leaf of its own.

    Attributes:
        branches: the branching nodes, parents before children. None if all choices are equal.
        steps: for every choice the `(branch, child)` decisions on its path, root first.
        groups: (C,) number of the distinct sequence that each choice has.

    Raises:
        ValueError: there is no choice.
    """

    normalised: ClassVar[bool] = False
    vocabulary: np.ndarray | None = None

    def __init__(self, choices: Sequence[Sequence[int]], end_token: int) -> None:
        if not choices:
            raise ValueError("a trie needs at least one choice")
        sequences = [(*choice, end_token) for choice in choices]
        children: dict[tuple[int, ...], set[int]] = {}
        for sequence in set(sequences):
            for depth, token in enumerate(sequence):
                children.setdefault(sequence[:depth], set()).add(token)
        branching = sorted((path for path, tokens in children.items() if len(tokens) > 1), key=lambda p: (len(p), p))
        self.branches = [Branch(path, np.asarray(sorted(children[path]), dtype=np.int64)) for path in branching]

        number = {branch.path: index for index, branch in enumerate(self.branches)}
        self.steps: list[list[tuple[int, int]]] = [
            [
                (index, int(np.searchsorted(self.branches[index].children, token)))
                for depth, token in enumerate(sequence)
                if (index := number.get(sequence[:depth])) is not None
            ]
            for sequence in sequences
        ]
        distinct = {sequence: group for group, sequence in enumerate(dict.fromkeys(sequences))}
        self.groups = np.asarray([distinct[sequence] for sequence in sequences], dtype=np.int64)

    def __len__(self) -> int:
        """The number of choices C."""
        return len(self.steps)

    def log_probs(self, branch_logits: Sequence[np.ndarray], tie_scores: np.ndarray | None = None) -> np.ndarray:
        """Combine the branching nodes into (C,) log-probabilities that sum to one.

        Args:
            branch_logits: for each branch (C,) logits or log-probabilities of its children, over any vocabulary.
            tie_scores: (C,) scores, such as CF logits, by whose softmax equal choices share their mass;
                equally if not given.
        """
        steps = [_log_softmax(np.asarray(logits, dtype=np.float64)) for logits in branch_logits]
        totals = np.asarray([sum((steps[branch][child] for branch, child in path), 0.0) for path in self.steps])
        scores = np.zeros(len(self)) if tie_scores is None else np.asarray(tie_scores, dtype=np.float64)
        for group in np.flatnonzero(np.bincount(self.groups) > 1):
            members = np.flatnonzero(self.groups == group)
            totals[members] += _log_softmax(scores[members])
        return totals


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())
