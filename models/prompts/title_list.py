"""The prompt that asks an LLM what it was pre-trained for: how a list of titles goes on.

`A list of titles that the same person bought: "T1", "T2", "` and then a title with its closing quote. How likely a
title is there less how likely it is in a list of anything tells what the history says for it. Nothing is trained for
it, so that it works with any LLM that has read of the catalogue's things.

Injected tokens can stand in a list, too: in the place of what closes a title that of its item, and in the place of the
last opening quote that of the user. What is injected there is the token's own embedding and something learned that is
added, so that nothing learned is the plain list.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
from pydantic import Field

from models.config import Config
from models.domain import Domain
from models.errors import PromptTooLongError
from models.prompts.layout import PromptLayout, Slot, TokenIds
from models.prompts.titles import encode_plain


class TitleListConfig(Config):
    """What a list of titles shows.

    Attributes:
        history_items: how many of the latest history items.
        history_title_tokens: longer titles are cut to this many tokens in the list. What is cut in the middle of a word
            leads an LLM away from lists of titles, so this is to leave nearly all of them whole.
        max_title_tokens: longer titles are cut to this many tokens as what follows the list.
        vocabulary: over which tokens probabilities are: all that the LLM knows, or those that titles of the catalogue
            have. The second costs an LLM with a large vocabulary a fraction, and vLLM cannot do it.
    """

    history_items: int = Field(10, ge=1)
    history_title_tokens: int = Field(64, ge=1)
    max_title_tokens: int = Field(32, ge=1)

    @property
    def tokens_needed(self) -> int:
        """Of every title: one more than is ever shown, which tells that a title is cut."""
        return max(self.history_title_tokens, self.max_title_tokens) + 1

    vocabulary: Literal["whole", "catalogue"] = "whole"


class TitleList:
    """Builds lists of titles.

    Args:
        tokenizer: the LLM's tokenizer.
        config: sizes.
        domain: the wording.
        context_length: the LLM's context in tokens; list and what follows stay within it.

    Attributes:
        alone: (L,) the prompt of a list of anything, against which a title's likelihood is held.
    """

    def __init__(self, tokenizer: Any, config: TitleListConfig, domain: Domain, context_length: int) -> None:
        self.config = config
        self._context_length = context_length
        begin, anything, self._between = encode_plain(
            tokenizer,
            [f'A list of titles that the same person {domain.past}: "', 'Here is a list of titles: "', '", "'],
        )
        bos = tokenizer.bos_token_id
        start = [] if bos is None else [int(bos)]
        self._begin = [*start, *begin]
        self.alone = np.asarray([*start, *anything], dtype=np.int64)

    def after(self, history: Sequence[TokenIds]) -> np.ndarray:
        """(L,) the prompt of a history.

        Args:
            history: titles of past items, oldest first; the oldest are left out if they do not fit.

        Raises:
            PromptTooLongError: the context has no room for a single title.
        """
        return np.asarray([*self._begin, *chain.from_iterable(self._entries(history))], dtype=np.int64)

    def ends(self, history: Sequence[TokenIds]) -> np.ndarray:
        """(P,) the places of `after(history)` behind each of the P titles that it shows, where the next would begin.

        An LLM that reads from left to right is there where the list of the titles so far would end.
        """
        lengths = [len(entry) for entry in self._entries(history)]
        return len(self._begin) - 1 + np.cumsum(lengths, dtype=np.int64)

    def layout(self, history: Sequence[TokenIds]) -> PromptLayout:
        """The prompt of a history with slots for injected tokens; where no title is shown there are none."""
        ends = self.ends(history)
        items = ends - len(self._between) + 1
        # Where one token is all that stands between two titles, the last one is the user's.
        items = items[: len(items) - (len(self._between) == 1)] if len(items) else items
        shown, users = len(ends), min(1, len(ends))
        return PromptLayout(
            token_ids=self.after(history),
            soft_positions=np.concatenate([items, ends[len(ends) - users :]]),
            slot_kinds=np.asarray([Slot.HISTORY] * len(items) + [Slot.USER] * users, dtype=np.int64),
            slot_ordinals=np.asarray(
                [*range(len(history) - shown, len(history))][: len(items)] + [0] * users, dtype=np.int64
            ),
            choices=[],
            shown=shown,
        )

    @property
    def slot_tokens(self) -> dict[Slot, int]:
        """The tokens in whose places injected ones stand."""
        return {Slot.HISTORY: self._between[0], Slot.USER: self._between[-1]}

    def _entries(self, history: Sequence[TokenIds]) -> list[list[int]]:
        """The titles that are shown, oldest first, each with what stands between it and the next."""
        longest = self.config.max_title_tokens
        room = self._context_length - len(self._begin) - longest - 1
        if room < 0:
            raise PromptTooLongError(
                f"a title of {longest} tokens does not fit the LLM's context of {self._context_length}: lower"
                " title_list.max_title_tokens and history_title_tokens"
            )
        entries: list[list[int]] = []
        for title in reversed(history[-self.config.history_items :]):
            entry = [*title[: self.config.history_title_tokens], *self._between]
            if len(entry) > room:
                break
            room -= len(entry)
            entries.append(entry)
        return entries[::-1]

    def continuation(self, title: TokenIds) -> list[int]:
        """A title as it follows in a list: with what closes it, unless it is cut."""
        longest = self.config.max_title_tokens
        return [*title, self._between[0]] if len(title) <= longest else list(title[:longest])
