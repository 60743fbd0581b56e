"""The prompts: token ids with slots for injected tokens (A-LLMRec section 4.2.4, Figures 3 and 5).

Stage 2, evaluation and serving all build their prompts here, so that what was trained is what is served.
A slot is a position, never a marker string: no title can forge one. Titles are quoted, so that the closing
quote ends a title and a title that is the beginning of another stays a choice of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from models.config import Config
from models.domain import Domain
from models.errors import ConfigError, PromptTooLongError
from models.prompts.layout import Injection, PromptLayout, Slot, TokenIds
from models.prompts.title_list import TitleListConfig
from models.prompts.titles import QUOTE, encode_plain

EXPLANATION_TOKENS = 32


Shown = TypeVar("Shown", bound=Sequence[Any] | np.ndarray)


class PromptConfig(Config):
    """What goes into a prompt. Travels in the bundle, because stage 2 was trained with it.

    Attributes:
        domain: the wording.
        history_items: how many of the latest history items are shown.
        max_title_tokens: longer titles are cut to this many tokens.
        injection: what is injected; none where stage 2 was skipped.
        title_list: the prompt that asks how likely a title follows.
    """

    domain: Domain = Domain()
    history_items: int = 10
    max_title_tokens: int = 16
    injection: Injection = Injection.ALL
    title_list: TitleListConfig = TitleListConfig()

    def shown(self, history: Shown) -> Shown:
        """The part of a history, oldest first, that a prompt shows if it has the room."""
        return history[max(0, len(history) - self.history_items) :]  # type: ignore[return-value]


class PromptTemplate:
    """Builds every prompt of the system.

    Args:
        tokenizer: the LLM's tokenizer.
        config: wording and sizes.
        context_length: the LLM's context in tokens; prompt and longest choice stay within it.

    Raises:
        ConfigError: the tokenizer cannot write a quotation mark.

    Attributes:
        end_token: the last token of the closing quote, which ends every choice.
    """

    def __init__(self, tokenizer: Any, config: PromptConfig, context_length: int) -> None:
        self.config = config
        self.context_length = context_length
        domain = config.domain
        (
            self._user,
            self._history,
            self._history_end,
            self._request,
            self._answer,
            self._genres,
            self._genre_answer,
            self._because,
            open_quote,
            close_quote,
            self._comma,
        ) = encode_plain(
            tokenizer,
            [
                " is a user representation.",
                f" This user has {domain.past}",
                " in the previous.",
                f" Recommend one next {domain.noun} for this user to {domain.verb} next"
                f" from the following {domain.noun} title set,",
                ". The recommendation is",
                f" Name the favorite {domain.noun} genre of this user from the following genre set,",
                ". The favorite genre is",
                f", because this user has {domain.past}",
                ' "',
                '"',
                ",",
            ],
        )
        if not close_quote or set(close_quote) & set(tokenizer.all_special_ids):
            raise ConfigError(
                f"the LLM's tokenizer has no token for {QUOTE}, by which titles are quoted: choose another LLM"
            )
        self._open_quote = open_quote
        self.end_token: int = close_quote[-1]
        self._close_quote = close_quote
        bos = tokenizer.bos_token_id
        self._start = [] if bos is None else [int(bos)]
        self._filler = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)

    def recommend(
        self,
        history: Sequence[TokenIds],
        candidates: Sequence[TokenIds],
        injection: Injection | None = None,
    ) -> PromptLayout:
        """The recommendation prompt (Figure 3).

        Args:
            history: titles of past items, oldest first; only the last `config.history_items` are shown.
            candidates: titles of the items to rank.
            injection: which slots the prompt has; those of the config if not given.

        A prompt over the context drops its oldest history first, then shortens titles; never candidates.

        Raises:
            PromptTooLongError: the candidates overflow the context even at one token a title.
        """
        return self._build(history, candidates, self._request, self._answer, injection)

    def favorite_genre(
        self,
        history: Sequence[TokenIds],
        genres: Sequence[TokenIds],
        injection: Injection | None = None,
    ) -> PromptLayout:
        """The genre prompt (Figure 5): the genres are the choices, each with a slot for its token.

        Raises:
            PromptTooLongError: the genres overflow the context even at one token each.
        """
        return self._build(history, genres, self._genres, self._genre_answer, injection)

    def explanation(
        self,
        history: Sequence[TokenIds],
        genre: TokenIds,
        injection: Injection | None = None,
    ) -> PromptLayout:
        """The prompt whose free continuation explains a favourite genre from the history that speaks for it.

        It is the genre prompt with its answer given and `, because this user has watched` after it, which leads an
        LLM to name things. The history leaves room for `EXPLANATION_TOKENS` and for
        quoting all of it.

        Raises:
            PromptTooLongError: the context is too small even without a history.
        """
        return self._explained(history, genre, self._genres, self._genre_answer, injection)

    def item_explanation(
        self,
        history: Sequence[TokenIds],
        item: TokenIds,
        injection: Injection | None = None,
    ) -> PromptLayout:
        """The prompt whose free continuation explains a recommended item, likewise from the recommendation prompt.

        Raises:
            PromptTooLongError: the context is too small even without a history.
        """
        return self._explained(history, item, self._request, self._answer, injection)

    def _explained(
        self,
        history: Sequence[TokenIds],
        choice: TokenIds,
        request: TokenIds,
        answer: TokenIds,
        injection: Injection | None,
    ) -> PromptLayout:
        given = [*choice, *self._close_quote, *self._because]
        shown = self.config.shown(history)
        quotes = sum(len(self._open_quote) + len(title) + len(self._close_quote) for title in shown)
        return self._build(history, [choice], request, answer, injection, given, EXPLANATION_TOKENS + quotes)

    def _build(
        self,
        history: Sequence[TokenIds],
        candidates: Sequence[TokenIds],
        request: TokenIds,
        answer: TokenIds,
        injection: Injection | None,
        given: TokenIds = (),
        room: int = 0,
    ) -> PromptLayout:
        """Title lists between `request` and `answer`; `given` is what the answer begins with, `room` what it needs."""
        injection = injection or self.config.injection
        first = len(history) - len(self.config.shown(history))
        shown, title_tokens = self._fit(history[first:], candidates, [request, answer, given], room)
        first = len(history) - shown

        builder = _Builder(self._filler)
        builder.text(self._start)
        if injection in (Injection.ALL, Injection.USER):
            builder.slot(Slot.USER, 0)
            builder.text(self._user)
        with_items = injection in (Injection.ALL, Injection.ITEMS)
        shown_history = [list(title[:title_tokens]) for title in history[first:]]
        shown_candidates = [list(title[:title_tokens]) for title in candidates]
        if shown_history:
            builder.text(self._history)
            self._titles(builder, shown_history, Slot.HISTORY if with_items else None, first)
            builder.text(self._history_end)
        builder.text(request)
        self._titles(builder, shown_candidates, Slot.CANDIDATE if with_items else None, 0)
        builder.text(answer)
        builder.text(self._open_quote)
        builder.text(given)
        choices = [[*title, *self._close_quote[:-1]] for title in shown_candidates]
        return builder.layout(choices, len(shown_history))

    def _titles(self, builder: _Builder, titles: Sequence[TokenIds], kind: Slot | None, first_ordinal: int) -> None:
        for position, title in enumerate(titles):
            if position:
                builder.text(self._comma)
            builder.text(self._open_quote)
            builder.text(title)
            builder.text(self._close_quote)
            if kind is not None:
                builder.slot(kind, first_ordinal + position)

    def _fit(
        self,
        history: Sequence[TokenIds],
        candidates: Sequence[TokenIds],
        others: Sequence[TokenIds],
        room: int,
    ) -> tuple[int, int]:
        """How many history items fit beside the `others`, and how many tokens of each title."""
        fixed = [self._start, self._user, self._history, self._history_end, self._open_quote, *others]
        budget = self.context_length - 1 - sum(map(len, fixed)) - room
        overhead = len(self._open_quote) + len(self._close_quote) + 1 + len(self._comma)

        def cost(titles: Sequence[TokenIds], title_tokens: int) -> int:
            return sum(overhead + min(len(title), title_tokens) for title in titles)

        def candidate_cost(title_tokens: int) -> int:
            longest = max((min(len(title), title_tokens) for title in candidates), default=0)
            return cost(candidates, title_tokens) + longest + len(self._close_quote)

        title_tokens = self.config.max_title_tokens
        spare = budget - candidate_cost(title_tokens)
        shown = 0
        while shown < len(history) and spare >= (step := cost(history[-1 - shown :][:1], title_tokens)):
            spare -= step
            shown += 1
        while candidate_cost(title_tokens) > budget:
            title_tokens -= 1
            if title_tokens == 0:
                raise PromptTooLongError(
                    f"{len(candidates)} candidates do not fit the LLM's context of {self.context_length} tokens:"
                    " rank fewer at a time"
                )
        return shown, title_tokens


class _Builder:
    """Appends text and slots, and keeps count of positions."""

    def __init__(self, filler: int) -> None:
        self._filler = filler
        self._tokens: list[int] = []
        self._slots: list[tuple[int, int, int]] = []

    def text(self, token_ids: TokenIds) -> None:
        self._tokens.extend(token_ids)

    def slot(self, kind: Slot, ordinal: int) -> None:
        self._slots.append((len(self._tokens), int(kind), ordinal))
        self._tokens.append(self._filler)

    def layout(self, choices: list[list[int]], shown: int) -> PromptLayout:
        positions, kinds, ordinals = np.asarray(self._slots, dtype=np.int64).reshape(-1, 3).T
        return PromptLayout(np.asarray(self._tokens, dtype=np.int64), positions, kinds, ordinals, choices, shown)
