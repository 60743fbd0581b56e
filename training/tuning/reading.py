"""How candidates are ranked by an LLM in training: `scale * (log P(title | list) - share * log P(title))`.

Axes: B lists, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.llm.loading import LanguageModel
from models.scoring.likelihood import ContinuationTree, child_log_probs
from models.scoring.packing import hidden_states, pack
from models.title_lists import TitleLists
from training.allmrec.stage2.loss import path_log_probs

START_SCALE, START_SHARE = 0.1, 0.75


class Read(NamedTuple):
    """What the LLM says of candidates.

    Attributes:
        likely_B_C: log P(title | list), -inf at padding.
        prior_B_C: log P(title), likewise.
        target_tokens_B: of the first candidate's title.
    """

    likely_B_C: torch.Tensor
    prior_B_C: torch.Tensor
    target_tokens_B: torch.Tensor


class Reading(nn.Module):
    """An LLM's weights in training, and how what it says is read.

    Args:
        llm: whose weights these are.
        weights: those that are trained.
        lists: what it is shown.
    """

    def __init__(self, llm: LanguageModel, weights: nn.Module, lists: TitleLists) -> None:
        super().__init__()
        self.weights = weights
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE), device=llm.model.device))
        self.share = nn.Parameter(torch.tensor(START_SHARE, device=llm.model.device))
        self._llm, self._lists = llm, lists

    def read(self, histories: Sequence[np.ndarray], items_B_C: np.ndarray) -> Read:
        """Ask the LLM about candidates after histories, and about the same in a list of anything."""
        trees = [self._lists.tree(items[items > 0]) for items in items_B_C]
        places = [np.flatnonzero(items) for items in items_B_C]
        after = [self._lists.after(history.tolist()) for history in histories]
        alone = [self._lists.alone] * len(after)
        # In one pass: on a GPU a step waits for its kernels to be launched, however small they are.
        both = spread(self._log_probs([*after, *alone], trees * 2), places * 2, items_B_C.shape[1])
        likely_B_C, prior_B_C = both[: len(after)], both[len(after) :]
        tokens = torch.tensor([len(tree.steps[0]) for tree in trees], device=likely_B_C.device)
        return Read(likely_B_C, prior_B_C, tokens)

    def logits(self, read: Read) -> torch.Tensor:
        """(B, C), -inf at padding."""
        real_B_C = read.likely_B_C.isfinite()
        # What is infinite must not be multiplied by what is trained: its gradient would not be a number.
        likely_B_C, prior_B_C = (values.masked_fill(~real_B_C, 0.0) for values in (read.likely_B_C, read.prior_B_C))
        logits_B_C = self.log_scale.exp() * (likely_B_C - self.share * prior_B_C)
        return logits_B_C.masked_fill(~real_B_C, -torch.inf)

    def _log_probs(self, prompts: Sequence[np.ndarray], trees: Sequence[ContinuationTree]) -> torch.Tensor:
        """(B, C') of each list's titles."""
        llm = self._llm
        nowhere = np.zeros(0, dtype=np.int64)
        packed = pack(prompts, [nowhere] * len(prompts), trees).to(llm.model.device)
        hidden_B_L_H = hidden_states(llm.model, packed, torch.zeros(0, llm.token_size, device=llm.model.device))
        hidden_M_H = hidden_B_L_H[packed.node_rows, packed.node_columns]
        nodes_M_C = child_log_probs(llm.model, hidden_M_H, packed.children_M_C, trees[0].vocabulary)
        return path_log_probs(trees, nodes_M_C.float())


def spread(values_B_K: torch.Tensor, places: Sequence[np.ndarray], width: int) -> torch.Tensor:
    """(B, width) of which row b has its values at `places[b]`, and -inf elsewhere."""
    rows = np.repeat(np.arange(len(places)), [len(columns) for columns in places])
    columns = np.concatenate(places)
    numbers = np.concatenate([np.arange(len(each)) for each in places])
    taken = values_B_K[torch.from_numpy(rows), torch.from_numpy(numbers)]
    wide_B_C = torch.full((len(places), width), -torch.inf, device=values_B_K.device)
    return wide_B_C.index_put((torch.from_numpy(rows), torch.from_numpy(columns)), taken)
