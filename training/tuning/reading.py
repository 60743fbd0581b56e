"""How candidates are ranked by an LLM in training: `scale * (log P(title | list) - share * log P(title))`.

Axes: B lists, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from models.llm.loading import LanguageModel
from models.scoring.likelihood import child_log_probs
from models.scoring.packing import hidden_states, pack
from training.allmrec.stage2.loss import path_log_probs
from training.allmrec.stage2.reader import checkpointed
from training.tuning.lists import Lists

START_SCALE, START_SHARE = 0.1, 0.75


class Read(NamedTuple):
    """What the LLM says of candidates.

    Attributes:
        likely_B_C: log P(title | list), -inf at padding.
        prior_B_C: log P(title), likewise.
    """

    likely_B_C: torch.Tensor
    prior_B_C: torch.Tensor


class Reading(nn.Module):
    """An LLM's weights in training, and how what it says is read.

    Args:
        llm: whose weights these are.
        weights: those that are trained.
        lists: what it is shown.
        checkpointing: keep activations at the borders of layers only.
    """

    def __init__(self, llm: LanguageModel, weights: nn.Module, lists: Lists, checkpointing: bool = False) -> None:
        super().__init__()
        self.weights = weights
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE), device=llm.model.device))
        self.share = nn.Parameter(torch.tensor(START_SHARE, device=llm.model.device))
        self._llm, self._lists, self._checkpointing = [llm], lists, checkpointing

    def read(self, histories: Sequence[np.ndarray], items_B_C: np.ndarray) -> Read:
        """Ask the LLM about candidates after histories, and about the same in a list of anything."""
        prompts = [self._lists.after(history) for history in histories]
        alone = [self._lists.alone] * len(prompts)
        return Read(self._log_probs(prompts, items_B_C), self._log_probs(alone, items_B_C))

    def logits(self, read: Read) -> torch.Tensor:
        """(B, C), -inf at padding."""
        real_B_C = read.likely_B_C.isfinite()
        # What is infinite must not be multiplied by what is trained: its gradient would not be a number.
        likely_B_C, prior_B_C = (values.masked_fill(~real_B_C, 0.0) for values in read)
        logits_B_C = self.log_scale.exp() * (likely_B_C - self.share * prior_B_C)
        return logits_B_C.masked_fill(~real_B_C, -torch.inf)

    def _log_probs(self, prompts: Sequence[np.ndarray], items_B_C: np.ndarray) -> torch.Tensor:
        (llm,) = self._llm
        trees = [self._lists.tree(items) for items in items_B_C]
        nowhere = np.zeros(0, dtype=np.int64)
        packed = pack(prompts, [nowhere] * len(prompts), trees).to(llm.model.device)
        no_tokens = torch.zeros(0, llm.token_size, device=llm.model.device)
        with checkpointed(llm.model) if self._checkpointing and torch.is_grad_enabled() else nullcontext():
            hidden_B_L_H = hidden_states(llm.model, packed, no_tokens)
        hidden_M_H = hidden_B_L_H[packed.node_rows, packed.node_columns]
        nodes_M_C = child_log_probs(llm.model, hidden_M_H, packed.children_M_C, trees[0].vocabulary)
        found_B_C = path_log_probs(trees, nodes_M_C.float())
        missing = items_B_C.shape[1] - found_B_C.shape[1]
        return nn.functional.pad(found_B_C, (0, missing), value=-torch.inf)
