"""One training prompt and the answer that is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from models.prompts.layout import PromptLayout
from models.scoring.choices import ChoiceTrie
from training.pretraining.preferences import Preferences

_LEAST = 1e-30


@dataclass(frozen=True)
class Example:
    """One training prompt.

    Attributes:
        layout: the prompt. What is to be written is part of its token ids.
        trie: of the choices; of one alone if something is to be written.
        preferences: the geometry and the true answer.
        soft_tokens: (S, d_tok).
        text: what is to be written: nothing, an explanation or an answer.
        written: its tokens, at the end of the prompt.
    """

    layout: PromptLayout
    trie: ChoiceTrie
    preferences: Preferences
    soft_tokens: torch.Tensor
    text: Literal["", "explanations", "answers"] = ""
    written: int = 0

    @property
    def length(self) -> int:
        """Packed tokens, nearly: the few branching paths are not counted."""
        return len(self.layout.token_ids)

    def node_targets(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Per branching node the true distribution (C,) of its children, and (M,) the probability to get there."""
        if self.text:
            return [], np.zeros(0)
        probs = np.exp(self.preferences.log_probs)
        masses = [np.zeros(len(branch.children)) for branch in self.trie.branches]
        for prob, steps in zip(probs, self.trie.steps, strict=True):
            for branch, child in steps:
                masses[branch][child] += prob
        reach = np.asarray([mass.sum() for mass in masses])
        return [mass / max(total, _LEAST) for mass, total in zip(masses, reach, strict=True)], reach
