"""Likelihood scoring: how probable each of C strings is as what follows a prompt.

Where choice scoring (`models.scoring.choices`) asks an LLM to choose among strings, this asks what it was pre-trained
for: `log P(string | prompt) = sum over its tokens of log softmax over V`. The strings stand behind the prompt as a
tree, so that prompt and shared beginnings are computed once; of the V logits at a place only those of the tokens that
follow there are kept, beside their normaliser.

Axes: C strings, L packed positions, M places of the tree, V vocabulary, H the LLM's hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.utils.checkpoint

from models.llm.head import head_of
from models.llm.loading import LanguageModel
from models.prompts.layout import Prompt
from models.scoring.choices import Branch, Branching
from models.scoring.packing import NO_CHILD, hidden_states, pack, soft_tokens_of, split_nodes

BLOCK_LOGITS = 2**24
"""How many logits are held at once: 64 MB in fp32."""


class ContinuationTree:
    """The token tree of C strings.

    Args:
        continuations: C token sequences, none empty.
        vocabulary: (V',) int64, increasing: the tokens that could follow, those of all strings among them. Then
            probabilities are those of a decoder that can write nothing else. None: all that the LLM knows.

    Attributes:
        branches: every place where a token follows, parents before children; the root's path is empty.
        steps: for every string the `(branch, child)` of each of its tokens, root first.

    Raises:
        ValueError: there is no string, or one is empty, or has a token that is not in the vocabulary.
    """

    normalised: ClassVar[bool] = True

    def __init__(self, continuations: Sequence[Sequence[int]], vocabulary: np.ndarray | None = None) -> None:
        sequences = [tuple(tokens) for tokens in continuations]
        if not sequences or not all(sequences):
            raise ValueError("a tree needs at least one string, and none that is empty")
        # Of each place its path and what follows there, by token the place that it leads to.
        paths: list[tuple[int, ...]] = [()]
        following: list[dict[int, int]] = [{}]
        for sequence in sequences:
            place = 0
            for token in sequence:
                if token not in following[place]:
                    following[place][token] = len(paths)
                    paths.append((*paths[place], token))
                    following.append({})
                place = following[place][token]
        if vocabulary is not None and not _holds(vocabulary, [*set().union(*following)]):
            raise ValueError("a string has tokens that are not in the vocabulary")
        self.vocabulary = vocabulary
        inner = [place for place, tokens in enumerate(following) if tokens]
        inner.sort(key=lambda place: (len(paths[place]), paths[place]))
        number = {place: index for index, place in enumerate(inner)}
        columns = {place: {token: column for column, token in enumerate(sorted(following[place]))} for place in inner}
        self.branches = [Branch(paths[place], np.asarray([*columns[place]], dtype=np.int64)) for place in inner]
        self.steps: list[list[tuple[int, int]]] = []
        for sequence in sequences:
            place, steps = 0, []
            for token in sequence:
                steps.append((number[place], columns[place][token]))
                place = following[place][token]
            self.steps.append(steps)

    def __len__(self) -> int:
        """The number of strings C."""
        return len(self.steps)

    def token_log_probs(self, branch_log_probs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each of C strings the log-probabilities of its tokens.

        Args:
            branch_log_probs: for each branch (C,) log-probabilities of its children, over the whole vocabulary.
        """
        return [
            np.asarray([branch_log_probs[branch][child] for branch, child in steps], dtype=np.float64)
            for steps in self.steps
        ]

    def log_probs(self, branch_log_probs: Sequence[np.ndarray]) -> np.ndarray:
        """(C,) log-probabilities of the strings; arguments as of `token_log_probs`."""
        return np.asarray([values.sum() for values in self.token_log_probs(branch_log_probs)])


def _holds(vocabulary: np.ndarray, tokens: Sequence[int]) -> bool:
    """Whether all tokens are in an increasing vocabulary."""
    places = np.searchsorted(vocabulary, tokens)
    return bool((places < len(vocabulary)).all() and (vocabulary[places] == tokens).all())


@torch.inference_mode()
def score_continuations(
    llm: LanguageModel, prompts: Sequence[Prompt], trees: Sequence[Branching]
) -> list[list[np.ndarray]]:
    """For each of B prompts the (C,) log-probabilities of every branch's children, in one forward pass.

    Memory is bounded by `BLOCK_LOGITS` and by the mask of the packed positions.
    """
    device = llm.model.device
    batch = pack([prompt.token_ids for prompt in prompts], [prompt.soft_positions for prompt in prompts], trees)
    batch = batch.to(device)
    soft_tokens_S_H = soft_tokens_of(prompts, llm.token_size, device)
    hidden_B_L_H = hidden_states(llm.model, batch, soft_tokens_S_H)
    hidden_M_H = hidden_B_L_H[batch.node_rows, batch.node_columns]
    parts, start = [], 0
    for tree in trees:
        rows = slice(start, start := start + len(tree.branches))
        parts.append(child_log_probs(llm.model, hidden_M_H[rows], batch.children_M_C[rows], tree.vocabulary))
    return split_nodes(torch.cat(parts), trees)


def child_log_probs(
    model: Any, hidden_M_H: torch.Tensor, children_M_C: torch.Tensor, vocabulary: np.ndarray | None = None
) -> torch.Tensor:
    """(M, C) log-probabilities of the children of M places, -inf beyond a place's own.

    Args:
        model: a causal LM.
        hidden_M_H: last hidden states.
        children_M_C: token ids, NO_CHILD beyond a place's own.
        vocabulary: (V',) over which; all of the LLM's if not given.
    """
    head = head_of(model)
    size = len(model.get_output_embeddings().weight) if vocabulary is None else len(vocabulary)
    among = None if vocabulary is None else torch.from_numpy(vocabulary).to(hidden_M_H.device)
    columns_M_C = children_M_C if among is None else torch.searchsorted(among, children_M_C)
    columns_M_C = columns_M_C.clamp(0, size - 1)
    places = max(1, BLOCK_LOGITS // size)

    def of_block(states_m_H: torch.Tensor, columns_m_C: torch.Tensor) -> torch.Tensor:
        logits_m_V = head.all_logits(states_m_H) if among is None else head.logits_of(states_m_H, among)
        return logits_m_V.gather(1, columns_m_C) - logits_m_V.logsumexp(dim=1, keepdim=True)

    def bounded(*block: torch.Tensor) -> torch.Tensor:
        # A backward pass would keep the logits of all blocks.
        if not hidden_M_H.requires_grad:
            return of_block(*block)
        return torch.utils.checkpoint.checkpoint(of_block, *block, use_reentrant=False)

    pairs = zip(torch.split(hidden_M_H, places), torch.split(columns_M_C, places), strict=True)
    return torch.cat([bounded(*pair) for pair in pairs]).masked_fill(children_M_C == NO_CHILD, -torch.inf)
