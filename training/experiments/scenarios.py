"""Scenarios: what is learned from, and whom rankers are then asked about (A-LLMRec section 5.2).

Axes: E users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from models.catalogue import Catalogue
from models.errors import DataError
from models.rankers.base import Audience
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut

FEWEST_ASKED = 5
"""Users that a figure must be of."""


@dataclass(frozen=True)
class Scenario:
    """One of the papers'.

    Attributes:
        id: stable, for files.
        title: for people.
        history: at most so many of the latest items of a history are told; all if not given.
        taught: so many users are learned from; all if not given.
        foreign: rankers are asked about another dataset than they learned from.
    """

    id: str
    title: str
    history: int | None = None
    taught: int | None = None
    foreign: bool = False

    def teach(self, seed: int) -> tuple[str, Callable[[Dataset], SequenceSplit]]:
        """What is learned from, with a name of it."""
        if self.taught is None:
            return "", SequenceSplit.from_dataset
        taught = self.taught
        return f"{taught} users, seed {seed}", lambda dataset: few_users(dataset, taught, seed)

    def asked(self, dataset: Dataset, seed: int, users: int) -> HeldOut:
        """Whom rankers are asked about, at most so many, spread evenly.

        Raises:
            DataError: there are too few.
        """
        held_out = HeldOut.of(SequenceSplit.from_dataset(dataset), Holdout.TEST, seed, users)
        if len(held_out) < FEWEST_ASKED:
            raise DataError(
                f"scenario '{self.title}': {len(held_out)} users of {dataset.info.name} can be asked about, at least"
                f" {FEWEST_ASKED} are needed: users with three interactions, and items that they never met"
            )
        return held_out if self.history is None else with_latest(held_out, self.history)


OVERALL = Scenario("overall", "all users")
FOREIGN = Scenario("foreign", "another catalogue", foreign=True)


def cold_users(items: int) -> Scenario:
    """Histories are cut to so many items."""
    return Scenario(f"history{items}", f"histories of {items}", history=items)


def few_shot(users: int) -> Scenario:
    """So many users are learned from."""
    return Scenario(f"taught{users}", f"{users} users", taught=users)


def with_latest(held_out: HeldOut, items: int) -> HeldOut:
    """The same users and candidates, of whom no more than the latest items are known."""
    histories = [history[-items:] for history in held_out.users.histories]
    return replace(held_out, users=Audience([""] * len(histories), histories))


def few_users(dataset: Dataset, users: int, seed: int) -> SequenceSplit:
    """The split of so many users, drawn at random; the catalogue keeps all items, most of them without interactions.

    Raises:
        DataError: the dataset has not more users than that.
    """
    split = SequenceSplit.from_dataset(dataset)
    drawable = np.flatnonzero(split.target(Holdout.TEST))
    if len(drawable) <= users:
        raise DataError(
            f"scenario '{users} users': {dataset.info.name} has {len(drawable)} users with held-out items, so to learn"
            f" from {users} of them would be to learn from all: take a larger dataset, or leave this table out"
        )
    chosen = np.sort(np.random.default_rng([seed, users]).choice(drawable, users, replace=False))
    train = [split.train[int(user)] for user in chosen]
    counts = np.bincount(np.concatenate(train), minlength=len(split.catalogue) + 1)[1:]
    return SequenceSplit(
        [split.user_ids[int(user)] for user in chosen],
        with_interactions(split.catalogue, counts),
        train,
        split.validation[chosen],
        split.test[chosen],
    )


def with_interactions(catalogue: Catalogue, counts: np.ndarray) -> Catalogue:
    """The same items, met so often (N,)."""
    return Catalogue(
        item_ids=catalogue.item_ids[1:],
        titles=catalogue.titles[1:],
        descriptions=catalogue.descriptions[1:],
        categories=catalogue.categories[1:],
        interactions=counts,
    )
