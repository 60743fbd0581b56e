"""From retrieved items to a ranked list: the blend without the LLM first, then, where it is asked, the one with it.

Serving, evaluation and batch jobs all rank so.

Axes: C items in question, W of them in the LLM's window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from models.bundle.blend import Blends
from models.bundle.catalogue_model import CatalogueModel
from models.errors import BundleError
from models.rankers.base import LocalRanker
from models.rankers.of_model import ENCODER, WAYS, constants_of, signals_of
from models.recommending.merge import merge_window
from models.recommending.person import Person
from models.recommending.retrieve import Pool
from models.recommending.sources import Sources


@dataclass(frozen=True)
class Shortlist:
    """Items in question, best first by the blend without the LLM.

    Attributes:
        items: (C,) item numbers.
        logits: (C,) of the blend without the LLM.
        scores: by signal id (C,) of both blends.
    """

    items: np.ndarray
    logits: np.ndarray
    scores: dict[str, np.ndarray]

    def __len__(self) -> int:
        """How many items."""
        return len(self.items)

    def first(self, count: int) -> Shortlist:
        """At most so many of them."""
        scores = {name: values[:count] for name, values in self.scores.items()}
        return Shortlist(self.items[:count], self.logits[:count], scores)


class ListRanker:
    """Ranks items for one user at a time, by a bundle's blends.

    Args:
        model: of the catalogue.
        blends: what each signal weighs.

    Attributes:
        ways: in which the LLM is asked, ids of `models.rankers.of_model.WAYS`: those that the blend with it weighs.

    Raises:
        BundleError: a blend weighs what this release does not know, or what the bundle does not have.
    """

    def __init__(self, model: CatalogueModel, blends: Blends) -> None:
        self._blends, self._interactions = blends, model.catalogue.interactions
        self._sources = Sources(model, blends.retrieval)
        weighed = {signal.id for blend in (blends.blend, blends.llm) for signal in blend.signals}
        local = [*signals_of(model), *constants_of(model)]
        unknown = weighed - {signal.id for signal in local} - set(WAYS)
        if unknown:
            raise BundleError(
                f"the bundle's blends weigh {', '.join(sorted(unknown))}, which this release does not know: serve it"
                " with the release that wrote it, or export it again"
            )
        self._signals: list[LocalRanker] = [signal for signal in local if signal.id in weighed]
        self.ways = [signal.id for signal in blends.llm.signals if signal.id in WAYS]

    def window(self, size: int) -> int | None:
        """How many candidates the LLM ranks where it is asked about `size` of them at most; None for all.

        As user encoder alone it is asked about none of them, and ranks all.
        """
        return None if self.ways == [ENCODER] else size

    @torch.inference_mode()
    def shortlist(self, person: Person, items: np.ndarray) -> Shortlist:
        """Items (C,), ordered by the blend without the LLM.

        Args:
            person: for whom.
            items: (C,) in any order, each once.
        """
        audience = person.audience
        scores = {signal.id: signal.compute(audience, items[None])[0] for signal in self._signals}
        logits = self._blends.blend.logits(_rows(scores), self._interactions[items][None])[0]
        order = np.argsort(-logits, kind="stable")
        return Shortlist(items[order], logits[order], {name: values[order] for name, values in scores.items()})

    def retrieve(self, pool: Pool, person: Person) -> Shortlist:
        """The best of all that the bundle's sources give, or what is given, ordered by the blend without the LLM.

        Args:
            pool: which items may be; of what was not given, `pool.count` are kept.
            person: for whom.
        """
        if pool.candidates is not None:
            return self.shortlist(person, np.asarray(pool.given(), dtype=np.int64))
        return self.shortlist(person, self._sources.gather(pool, person)).first(pool.count)

    def find(self, pool: Pool, person: Person) -> np.ndarray:
        """See `Finder.find`: the items of `retrieve`."""
        return self.retrieve(pool, person).items

    def with_llm(self, shortlist: Shortlist, answers: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The order (C,) as positions of `shortlist`, best first, and the scores (C,) in that order.

        Args:
            shortlist: of which the LLM ranked the first W.
            answers: what it said of them (W,), by each of `ways`.
        """
        window = len(next(iter(answers.values())))
        scores = {name: values[:window] for name, values in shortlist.scores.items()} | dict(answers)
        interactions_W = self._interactions[shortlist.items[:window]]
        logits_W = self._blends.llm.logits(_rows(scores), interactions_W[None])[0]
        return merge_window(shortlist.logits, logits_W)


def _rows(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As those of an audience of one."""
    return {name: values[None] for name, values in scores.items()}
