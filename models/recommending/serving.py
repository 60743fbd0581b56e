"""What serving does with a user, for whole audiences: retrieve, rank a window by the LLM, leave the rest in its order.

Axes: E users, C candidates, K items retrieved, W of them in the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import PADDING_ITEM
from models.rankers.base import Audience, Ranker
from models.recommending.merge import merge_window
from models.recommending.person import persons
from models.recommending.retrieve import Finder, IndexFinder, Pool


@dataclass(frozen=True)
class Serving:
    """One bundle as it is served.

    Attributes:
        model: whose users they are.
        fallback: orders what is retrieved before an LLM ranks a window of it, and needs none.
        retrieved: K.
        window: W, how many candidates an LLM is asked about, where it has to be asked about each.
        finder: what retrieves; the model's index if not given.
    """

    model: CatalogueModel
    fallback: Ranker
    retrieved: int = 100
    window: int = 20
    finder: Finder | None = None

    def retrieve(self, users: Audience) -> np.ndarray:
        """(E, K) the items found for users, best first, without those of their histories; padding where fewer are."""
        items_E_K = np.full((len(users), self.retrieved), PADDING_ITEM, dtype=np.int64)
        finder = self.finder or IndexFinder(self.model)
        for row, person in enumerate(persons(self.model, users.histories, users.user_ids)):
            found = finder.find(Pool(None, None, set(person.history.tolist()), self.retrieved), person)
            items_E_K[row, : len(found)] = found
        return items_E_K

    async def rank(self, ranker: Ranker, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """(E, C) scores, -inf at padding: of all candidates, or, where `ranker` needs an LLM, minus their places.

        Args:
            ranker: what is served.
            users: for whom.
            candidates_E_C: item numbers, 0 at padding.
        """
        if not ranker.needs_llm:
            return await ranker.score(users, candidates_E_C)
        before_E_C = await self.fallback.score(users, candidates_E_C)
        order_E_C = np.argsort(-before_E_C, axis=1, kind="stable")
        window = None if ranker.ranks_catalogue else self.window
        shown_E_W = np.take_along_axis(candidates_E_C, order_E_C[:, :window], axis=1)
        asked_E_W = await ranker.score(users, shown_E_W)
        scores_E_C = np.full(candidates_E_C.shape, -np.inf)
        for row, (order, shown) in enumerate(zip(order_E_C, shown_E_W, strict=True)):
            count, real = int((shown != PADDING_ITEM).sum()), int((candidates_E_C[row] != PADDING_ITEM).sum())
            if count:
                merged, _ = merge_window(before_E_C[row, order[:real]], asked_E_W[row, :count])
                scores_E_C[row, order[merged]] = -np.arange(real, dtype=np.float64)
        return scores_E_C
