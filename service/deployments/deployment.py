"""What is being served: one bundle and all that is derived from it, swapped as one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from models.bundle.catalogue_model import CatalogueModel
from models.bundle.store import Bundle
from models.catalogue import Catalogue
from models.composer import Asked, PromptComposer
from models.engines.base import LLMEngine
from models.rankers.of_model import WAYS
from models.recommending.explained import ExplainedGenres, ExplainedItems
from models.recommending.genres import GenreRanker
from models.recommending.person import Person
from models.recommending.shortlist import ListRanker

SAMPLE_HISTORY = 5


@dataclass(frozen=True)
class Deployment:
    """A bundle ready to answer. A request keeps the one it started with.

    Attributes:
        bundle: verified and fitting the engine's LLM.
        composer: asks about its users and items.
        lists: ranks what was retrieved for a user.
        genres: explains a user's favourite genres.
        variant: its name in answers and metrics.
    """

    bundle: Bundle
    composer: PromptComposer
    lists: ListRanker
    genres: ExplainedGenres
    variant: str

    @classmethod
    def build(cls, bundle: Bundle, engine: LLMEngine, variant: str) -> Deployment:
        """Derive from `bundle` what answering with `engine` needs."""
        composer = PromptComposer(bundle.model, bundle.manifest.prompt, engine.tokenizer, engine.context_length)
        blends = bundle.manifest.blends
        genres = ExplainedGenres(composer, GenreRanker(composer, blends.genres))
        return cls(bundle, composer, ListRanker(bundle.model, blends), genres, variant)

    @property
    def version(self) -> str:
        """The bundle version."""
        return self.bundle.version

    @property
    def catalogue_name(self) -> str:
        """Whose users these are: what is stored of users is kept apart by it."""
        return self.bundle.manifest.name

    @property
    def model(self) -> CatalogueModel:
        """The catalogue's tables and networks."""
        return self.bundle.model

    @property
    def catalogue(self) -> Catalogue:
        """The items."""
        return self.bundle.model.catalogue

    def recent(self, history: np.ndarray) -> np.ndarray:
        """The part of a history that the backbones read."""
        return history[-self.bundle.model.read_length :]

    def known_to_backbone(self, user_id: str | None) -> str | None:
        """The user, where who that is decides the representation, beside the history; else None."""
        model = self.bundle.model
        return user_id if model.backbone.reads_users and user_id in model.histories else None

    def questions(self, person: Person, items: np.ndarray, ways: Sequence[str]) -> list[Asked]:
        """What the LLM is asked of somebody and candidates (W,), in each of some `ways`."""
        return [WAYS[way](self.composer, person.vector, person.history, items) for way in ways]

    def listed(self, history: np.ndarray) -> np.ndarray:
        """The part of a history that a list of titles shows."""
        return history[-self.bundle.manifest.prompt.title_list.history_items :]

    def among(self, items: np.ndarray) -> ExplainedItems:
        """What explains which of a window of items (W,) a user gets."""
        return ExplainedItems(self.composer, self.lists, items)

    def sample_users(self, count: int) -> list[str]:
        """Ids of some users with a history worth a look."""
        histories = self.bundle.model.histories
        rich = (user_id for user_id in histories.user_ids() if len(histories.of(user_id)) >= SAMPLE_HISTORY)
        return list(islice(rich, count)) or histories.user_ids()[:count]
