"""The default ranker: a blend of signals, see `models.bundle.blend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.bundle.blend import Blend
from models.rankers.base import Audience, Ranker, mask_padding


class BlendRanker(Ranker):
    """Ranks by a blend.

    Args:
        id: "blend" without the LLM, "llm" with it.
        title: for people.
        blend: the weights.
        rankers: of its signals, by id; others are not asked.
        interactions: (N+1,) training interactions of every item.
    """

    def __init__(
        self,
        id: str,  # noqa: A002
        title: str,
        blend: Blend,
        rankers: Mapping[str, Ranker],
        interactions: np.ndarray,
    ) -> None:
        self.id, self.title = id, title
        self._blend, self._interactions = blend, interactions
        self._rankers = {signal.id: rankers[signal.id] for signal in blend.signals}
        self.needs_llm = any(ranker.needs_llm for ranker in self._rankers.values())
        self.ranks_catalogue = all(ranker.ranks_catalogue for ranker in self._rankers.values())

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        scores = {name: await ranker.score(users, candidates_E_C) for name, ranker in self._rankers.items()}
        logits_E_C = self._blend.logits(scores, self._interactions[candidates_E_C])
        return mask_padding(logits_E_C, candidates_E_C)


def by_id(rankers: Sequence[Ranker]) -> dict[str, Ranker]:
    """Rankers by id."""
    return {ranker.id: ranker for ranker in rankers}
