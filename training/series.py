"""Series: which candidates begin as a title of the history does.

It is the one signal of the embedded LLM's law that no injected token carries: the LLM finds it in the titles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.prompt import TitleTokens, TokenIds

_BEGINNING = 2


def in_series(history: Sequence[TokenIds], candidates: Sequence[TokenIds]) -> np.ndarray:
    """(C,) 1.0 where a title of the history begins with the same two tokens as the candidate's, 0.0 elsewhere.

    A title ends with a token of its own, so two titles of a single token are only alike if they are equal.

    Args:
        history: tokens of the titles told, as they stand in the prompt.
        candidates: tokens of the titles offered.
    """
    known = {_beginning(title) for title in history}
    return np.asarray([float(_beginning(title) in known) for title in candidates])


def series_table(titles: TitleTokens, histories: Sequence[np.ndarray], items_E_C: np.ndarray) -> np.ndarray:
    """(E, C) `in_series` of candidates `items_E_C` with E histories of item numbers."""
    return np.stack(
        [in_series(titles.of(history), titles.of(items)) for history, items in zip(histories, items_E_C, strict=True)]
    )


def _beginning(title: TokenIds) -> tuple[int | None, ...]:
    return tuple([*title[:_BEGINNING], None][:_BEGINNING])
