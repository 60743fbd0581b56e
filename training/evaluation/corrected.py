"""A ranker that knows by what odds negatives were drawn: it says how much of a protocol's figures these odds are.

Among candidates that were drawn by odds q, the likeliest positive is the one with the largest p / q, not with the
largest p (Bengio and Senecal 2008). Serving draws by no odds, so nothing of this is served.

Axes: E users, C candidates.
"""

from __future__ import annotations

import numpy as np

from models.rankers.base import Audience, Ranker, mask_padding


class CorrectedRanker(Ranker):
    """The logits of another ranker less log q, where q is about in proportion to interactions.

    One is added, as an item without any is never drawn; it is known by that, so figures for such items mean nothing.

    Args:
        ranker: the other; its logits are log p up to a constant of each user.
        interactions: (N+1,) training interactions of every item.
    """

    def __init__(self, ranker: Ranker, interactions: np.ndarray) -> None:
        self.id, self.title = f"{ranker.id}_corrected", f"{ranker.title}, told the odds of negatives"
        self.needs_llm = ranker.needs_llm
        self._ranker, self._log_odds = ranker, np.log1p(interactions)

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        logits_E_C = await self._ranker.score(users, candidates_E_C)
        return mask_padding(logits_E_C - self._log_odds[candidates_E_C], candidates_E_C)
