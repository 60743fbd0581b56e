"""What can be explained: probabilities of alternatives that follow from a history, by whoever serves.

An explanation is an experiment: the same question about a history that lacks an item. So what is explained says how it
is asked and what follows from the answers, for any history.

Axes: C alternatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from models.composer import Asked, PromptComposer
from models.rankers.of_model import ENCODER, WAYS
from models.recommending.genres import GenreRanker
from models.recommending.merge import softmax
from models.recommending.person import Person
from models.recommending.shortlist import ListRanker


class Explained(ABC):
    """Alternatives, one of which is to be explained."""

    @abstractmethod
    def questions(self, person: Person) -> list[Asked]:
        """What the LLM is asked; of every person as many."""

    @abstractmethod
    def probabilities(self, person: Person, answers: Sequence[np.ndarray] | None) -> np.ndarray:
        """(C,) probabilities of the alternatives.

        Args:
            person: who.
            answers: to `questions`; None to do without the LLM.
        """


class ExplainedGenres(Explained):
    """Which genre is somebody's favourite?

    Args:
        composer: of the catalogue.
        genres: ranks them.
    """

    def __init__(self, composer: PromptComposer, genres: GenreRanker) -> None:
        self._composer, self._genres = composer, genres

    def questions(self, person: Person) -> list[Asked]:
        """See `Explained.questions`."""
        shown = self._composer.template.config.shown(person.history).tolist()
        return [self._composer.favorite_genre(person.vector, shown)]

    def probabilities(self, person: Person, answers: Sequence[np.ndarray] | None) -> np.ndarray:
        """See `Explained.probabilities`."""
        return self._genres.probabilities(person.vector, person.history, None if answers is None else answers[0])


class ExplainedItems(Explained):
    """Which of a few items comes next? As lists are ranked, whose window they all fit.

    Args:
        composer: of the catalogue.
        lists: ranks them.
        items: (C,) item numbers, each once.
    """

    def __init__(self, composer: PromptComposer, lists: ListRanker, items: np.ndarray) -> None:
        self._composer, self._lists, self._items = composer, lists, items

    def questions(self, person: Person) -> list[Asked]:
        """See `Explained.questions`."""
        return [WAYS[way](self._composer, person.vector, person.history, self._items) for way in self._lists.ways]

    def probabilities(self, person: Person, answers: Sequence[np.ndarray] | None) -> np.ndarray:
        """See `Explained.probabilities`."""
        shortlist = self._lists.shortlist(person, self._items)
        place_of = {int(item): place for place, item in enumerate(self._items)}
        places_C = np.asarray([place_of[int(item)] for item in shortlist.items])
        order_C, scores_C = np.arange(len(places_C)), softmax(shortlist.logits)
        if answers is not None:
            model, told = self._composer.model, dict(zip(self._lists.ways, answers, strict=True))
            if ENCODER in told:
                told[ENCODER] = model.cf_logits(model.encoded_user(told[ENCODER]), self._items)
            said = {way: answer[places_C] for way, answer in told.items()}
            order_C, scores_C = self._lists.with_llm(shortlist, said)
        probabilities_C = np.empty(len(places_C))
        probabilities_C[places_C[order_C]] = scores_C
        return probabilities_C
