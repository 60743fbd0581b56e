"""Token ids with slots for injected tokens: a slot is a position, never a marker string, so no title can forge one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
import torch

TokenIds = Sequence[int]


class Slot(IntEnum):
    """What an injected token stands for."""

    USER = 0
    HISTORY = 1
    CANDIDATE = 2


class Injection(StrEnum):
    """Which tokens are injected: the method and its ablations (Table 9)."""

    ALL = "all"
    ITEMS = "items"
    USER = "user"
    NONE = "none"


@dataclass(frozen=True)
class Prompt:
    """A prompt ready for an engine.

    Attributes:
        token_ids: (L,) int64; the values at `soft_positions` mean nothing.
        soft_positions: (S,) int64, increasing.
        soft_tokens: (S, d_tok) float, the embeddings that stand at `soft_positions`.
    """

    token_ids: np.ndarray
    soft_positions: np.ndarray
    soft_tokens: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.soft_positions) != len(self.soft_tokens):
            raise ValueError(f"{len(self.soft_positions)} slots but {len(self.soft_tokens)} soft tokens")

    def inject(self, embeddings_L_H: torch.Tensor, start: int = 0) -> None:
        """Put the soft tokens into their slots of `embeddings_L_H`, in which this prompt begins at row `start`."""
        slots = torch.from_numpy(self.soft_positions).to(embeddings_L_H.device) + start
        embeddings_L_H[slots] = self.soft_tokens.to(embeddings_L_H)

    def followed_by(self, token_ids: TokenIds) -> Prompt:
        """This prompt with more tokens at its end."""
        longer = np.concatenate([self.token_ids, np.asarray(token_ids, dtype=np.int64)])
        return Prompt(longer, self.soft_positions, self.soft_tokens)


@dataclass(frozen=True)
class PromptLayout:
    """A prompt whose slots are still empty.

    Attributes:
        token_ids: (L,) int64.
        soft_positions: (S,) int64, increasing.
        slot_kinds: (S,) int64, `Slot` values.
        slot_ordinals: (S,) int64: which history entry or candidate, as numbered by the caller; 0 for the user.
        shown: of how many of the latest history items the titles are there.
        choices: the C candidates' tokens as they stand in the prompt, to be scored as continuations. Of a closing
            quote of several tokens, each has all but the last.
    """

    token_ids: np.ndarray
    soft_positions: np.ndarray
    slot_kinds: np.ndarray
    slot_ordinals: np.ndarray
    choices: list[list[int]]
    shown: int = 0

    def fill(self, soft_tokens: torch.Tensor) -> Prompt:
        """Put `soft_tokens` (S, d_tok) into the slots."""
        return Prompt(self.token_ids, self.soft_positions, soft_tokens)
