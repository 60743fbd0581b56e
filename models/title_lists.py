"""The titles of a catalogue in lists, and as what follows one: what an LLM is asked about how likely titles are.

The blend's rankers ask through here, and an LLM is tuned through here, so that both see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from models.domain import Domain
from models.prompts.layout import PromptLayout, Slot
from models.prompts.title_list import TitleList, TitleListConfig
from models.prompts.titles import TitleTokens
from models.scoring.likelihood import ContinuationTree


class TitleLists:
    """Builds lists of items' titles.

    Args:
        titles: (N+1,) of all items, row 0 the padding item's; tokenised when they are first needed.
        tokenizer: of the LLM.
        config: what a list shows.
        domain: its wording.
        context_length: of the LLM, in tokens.
    """

    def __init__(
        self, titles: Sequence[str], tokenizer: Any, config: TitleListConfig, domain: Domain, context_length: int
    ) -> None:
        self._list = TitleList(tokenizer, config, domain, context_length)
        self._titles, self._tokenizer = titles, tokenizer

    @property
    def alone(self) -> np.ndarray:
        """(L,) the prompt of a list of anything."""
        return self._list.alone

    @property
    def slots(self) -> dict[Slot, int]:
        """The tokens in whose places injected ones stand."""
        return self._list.slot_tokens

    @property
    def lengths(self) -> np.ndarray:
        """(N+1,) tokens of every title, as far as lists show them."""
        return np.minimum(self._tokens.lengths, self._list.config.tokens_needed - 1)

    def after(self, history: Sequence[int]) -> np.ndarray:
        """(L,) the list of a history's titles; item numbers, oldest first."""
        return self._list.after(self._tokens.of(history))

    def ends(self, history: Sequence[int]) -> np.ndarray:
        """(P,) the places in that list behind each title that is shown."""
        return self._list.ends(self._tokens.of(history))

    def layout(self, history: Sequence[int]) -> PromptLayout:
        """That list with slots for injected tokens."""
        return self._list.layout(self._tokens.of(history))

    def tree(self, items: Sequence[int] | np.ndarray) -> ContinuationTree:
        """The titles of K items as they follow in a list."""
        titles = self._tokens.of(np.asarray(items).tolist())
        return ContinuationTree([self._list.continuation(title) for title in titles], self._vocabulary)

    @cached_property
    def _tokens(self) -> TitleTokens:
        return TitleTokens(self._tokenizer, self._titles, self._list.config.tokens_needed)

    @cached_property
    def _vocabulary(self) -> np.ndarray | None:
        """(V',) the tokens that titles are made of; None for all of the LLM's."""
        if self._list.config.vocabulary == "whole":
            return None
        titles = (self._list.continuation(self._tokens[item]) for item in range(1, len(self._tokens)))
        return np.asarray(sorted(set().union(*titles)), dtype=np.int64)
