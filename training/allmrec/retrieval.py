"""Chooses on validation users what candidates are gathered from: more sources only where they find more.

Axes: E users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from models.bundle.blend import Blends
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.retrieval import Retrieval, Source
from models.config import Config
from models.recommending.person import persons
from models.recommending.retrieve import Pool
from models.recommending.shortlist import ListRanker
from models.recommending.sources import Sources
from training.allmrec.logit import FEWEST_USERS
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import paired_difference


class RetrievalConfig(Config):
    """How the sources are chosen.

    Attributes:
        users: at most this many validation users.
        kept: items that are retrieved.
        depth: so many times as many each source may give, where the blend has a choice.
    """

    users: int = Field(1000, gt=0)
    kept: int = Field(100, gt=0)
    depth: int = Field(3, gt=0)

    @property
    def options(self) -> list[Retrieval]:
        """What is tried: the index alone, in its order, by the blend's, and with other sources."""
        others = [(), (Source.FOLLOWED,), (Source.TEXT,), (Source.FOLLOWED, Source.TEXT)]
        return [Retrieval(), *(Retrieval(sources=(Source.CF, *more), depth=self.depth) for more in others)]


def choose_retrieval(split: SequenceSplit, model: CatalogueModel, blends: Blends, config: RetrievalConfig) -> Retrieval:
    """The first of the options, or a later one that certainly finds more of the validation items.

    Users who met theirs before are left out, as from the fit of the blend, and too few for that are too few for this.

    Args:
        split: the data; its validation items are looked at, its test items never.
        model: of the catalogue.
        blends: fitted; they order what is gathered.
        config: what is tried, and on how many.
    """
    held_out = HeldOut.of(split, Holdout.VALIDATION, users=config.users)
    held_out = held_out.take(held_out.groups["new"])
    if len(held_out) < FEWEST_USERS:
        return Retrieval()
    found = _found(held_out, _Searcher.of(model, blends, config), config)
    return _chosen(config.options, found)


def _chosen(options: Sequence[Retrieval], found: Mapping[str, np.ndarray]) -> Retrieval:
    """The best by a row of duels, each of which the simpler option wins unless the 95 % interval says otherwise."""
    chosen = options[0]
    for option in options[1:]:
        duel = found[option.name], found[chosen.name]
        if paired_difference(*duel).low > 0:
            chosen = option
    recall = {name: float(values.mean()) for name, values in found.items()}
    return chosen.model_copy(update={"validation": recall})


@dataclass(frozen=True)
class _Searcher:
    """Every source by itself, and what orders their items."""

    sources: Mapping[Source, Sources]
    lists: ListRanker
    model: CatalogueModel

    @classmethod
    def of(cls, model: CatalogueModel, blends: Blends, config: RetrievalConfig) -> _Searcher:
        alone = {source: Sources(model, Retrieval(sources=(source,), depth=config.depth)) for source in Source}
        return cls(alone, ListRanker(model, blends), model)


def _found(held_out: HeldOut, searcher: _Searcher, config: RetrievalConfig) -> dict[str, np.ndarray]:
    """By the options' names (E,) whether the positive is among what is kept; sources are asked once for all options."""
    found = {option.name: np.zeros(len(held_out)) for option in config.options}
    everyone = persons(searcher.model, held_out.users.histories, held_out.users.user_ids)
    for row, (person, positive) in enumerate(zip(everyone, held_out.positives, strict=True)):
        pool = Pool(None, None, set(person.history.tolist()), config.kept)
        given = {name: source.gather(pool, person) for name, source in searcher.sources.items()}
        everything = np.unique(np.concatenate(list(given.values())))
        ordered = searcher.lists.shortlist(person, everything).items
        for option in config.options:
            if option.depth == 1:
                kept = given[Source.CF][: config.kept]
            else:
                joined = np.concatenate([given[name] for name in option.sources])
                kept = ordered[np.isin(ordered, joined)][: config.kept]
            found[option.name][row] = positive in kept
    return found
