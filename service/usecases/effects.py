"""Proof by experiment: what a probability falls to without an item in the history, by whoever ranks.

The blend without the LLM, which costs little, is asked about every recent item of the history; the LLM about those that
seem to matter by it, all at once. If the LLM cannot be had for all of that in time, the blend without it gives the
whole answer, so that a probability and its effects are always of one kind.

Axes: C alternatives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from models.recommending.explained import Explained
from models.recommending.person import Person
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.llm_gate import FallbackError, LLMGate, Work
from service.outcome import Fallback, Ranker
from service.users.representations import Representations

SCREENED = 32
"""So many of the latest items of a history are tried by the blend without the LLM."""
LEAST_FALL = 0.01
"""The share of a probability by which it must fall for an item to be named: ten times what engines may differ by."""
LEAST_FALL_IN_HALF = 0.05
"""The same where the LLM computes in half precision, whose rounding moves a probability by up to a hundredth."""
LLM_SHARE = 0.5
"""Of the time that is left, how much each of the two questions to the LLM may take."""

Result = TypeVar("Result")
Claims = Callable[[np.ndarray], Sequence[tuple[int, Sequence[int]]]]
"""From probabilities (C,) to what is claimed: places of alternatives, each with items that may speak for it."""


@dataclass(frozen=True)
class Effect:
    """What an item does for a probability.

    Attributes:
        probability: without the item in the history.
        change: from the probability with it; below zero if the item speaks for what it is the probability of.
        least_fall: the share of the probability by which it must fall to be a reason.
    """

    probability: float
    change: float
    least_fall: float = LEAST_FALL

    @property
    def is_reason(self) -> bool:
        """Whether the probability falls by so much that it can be said."""
        return -self.change > self.least_fall * (self.probability - self.change)


@dataclass(frozen=True)
class Proof:
    """Probabilities and what they are without some items.

    Attributes:
        probabilities: (C,).
        without: by item number what they are without it (C,); only of items that were tried, none where time is short.
        ranker: whose all of them are.
        fallback: why they are not the LLM's.
        least_fall: see `Effect`.
    """

    probabilities: np.ndarray
    without: Mapping[int, np.ndarray]
    ranker: Ranker
    fallback: Fallback | None
    least_fall: float = LEAST_FALL

    def effect(self, item: int, place: int) -> Effect | None:
        """Of an item on an alternative; None if it was not tried."""
        if item not in self.without:
            return None
        found = float(self.without[item][place])
        return Effect(found, found - float(self.probabilities[place]), self.least_fall)


@dataclass(frozen=True)
class Subject:
    """What is to be proved.

    Attributes:
        explained: the alternatives.
        person: of whom.
        user_id: who that is.
        claims: see `Claims`.
        work: of the LLM.
        by_llm: whether the LLM ranks.
    """

    explained: Explained
    person: Person
    user_id: str
    claims: Claims
    work: Work
    by_llm: bool = True


class Prover:
    """Makes the experiments.

    Args:
        representations: of histories.
        llm: the gate to the LLM.
        executor: computes what needs no LLM.
        tried: with how many histories the LLM is asked again at most.
        reserve_ms: kept of a request's time for the rest of the answer.
        in_half: whether the LLM computes in half precision.
    """

    def __init__(
        self,
        representations: Representations,
        llm: LLMGate,
        executor: Executor,
        tried: int,
        reserve_ms: float,
        in_half: bool = False,
    ) -> None:
        self._representations, self._llm, self._executor = representations, llm, executor
        self._tried, self._reserve_ms = tried, reserve_ms
        self._least_fall = LEAST_FALL_IN_HALF if in_half else LEAST_FALL

    async def prove(self, deployment: Deployment, subject: Subject, deadline: Deadline) -> Proof:
        """The probabilities, and what they are without those items that are claimed to matter."""
        (local,) = await self._local(subject, [subject.person])
        answers: list[np.ndarray] | None = None
        fallback: Fallback | None = None
        if subject.by_llm:
            try:
                (answers,) = await self._ask(subject, [subject.person], subject.work, deadline)
            except FallbackError as error:
                fallback = error.reason
        probabilities = local if answers is None else subject.explained.probabilities(subject.person, answers)
        ranker: Ranker = "blend" if answers is None else "llm"
        try:
            async with asyncio.timeout(deadline.remaining(self._reserve_ms)):
                persons = await self._persons(deployment, subject)
                found = await self._local(subject, list(persons.values()))
        except TimeoutError:
            return Proof(probabilities, {}, ranker, fallback)
        without = dict(zip(persons, found, strict=True))
        if answers is not None:
            tried = promising(subject.claims(probabilities), local, without)[: self._tried]
            try:
                asked = await self._ask(subject, [persons[item] for item in tried], "effects", deadline)
            except FallbackError as error:
                probabilities, ranker, fallback = local, "blend", error.reason
            else:
                without = {
                    item: subject.explained.probabilities(persons[item], said)
                    for item, said in zip(tried, asked, strict=True)
                }
        least_fall = self._least_fall if ranker == "llm" else LEAST_FALL
        return Proof(probabilities, without, ranker, fallback, least_fall)

    async def _persons(self, deployment: Deployment, subject: Subject) -> dict[int, Person]:
        """The person without each of the latest items, by item number."""
        history = subject.person.history
        histories = {int(item): history[history != item] for item in history[-SCREENED:]}
        found = await self._representations.apart(deployment, list(histories.values()), subject.user_id)
        return dict(zip(histories, found, strict=True))

    async def aside(self, compute: Callable[[], Result]) -> Result:
        """What `compute` returns, without holding up anybody else."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, compute)

    async def _local(self, subject: Subject, persons: Sequence[Person]) -> list[np.ndarray]:
        """The probabilities (C,) of each by the blend without the LLM."""
        return await self.aside(lambda: [subject.explained.probabilities(person, None) for person in persons])

    async def _ask(
        self, subject: Subject, persons: Sequence[Person], work: Work, deadline: Deadline
    ) -> list[list[np.ndarray]]:
        """What the LLM answers about each person.

        Raises:
            FallbackError: it does not, or not in time.
        """
        if not persons:
            return []
        asked = await self._llm.ask(
            lambda: [question for person in persons for question in subject.explained.questions(person)],
            LLM_SHARE * deadline.remaining(self._reserve_ms),
            work,
        )
        each = len(asked) // len(persons)
        return [asked[start : start + each] for start in range(0, len(asked), each)]


def promising(
    claims: Sequence[tuple[int, Sequence[int]]], before: np.ndarray, without: Mapping[int, np.ndarray]
) -> list[int]:
    """The items of all claims, each once: what makes the most for each claim, then what is next, the first claim first.

    Args:
        claims: see `Claims`.
        before: (C,) probabilities by the blend without the LLM.
        without: by item number the same without it; items that are not there are left out.
    """
    places: list[tuple[int, int, int]] = []
    for number, (place, items) in enumerate(claims):
        falls = {item: float(before[place] - without[item][place]) for item in items if item in without}
        order = sorted(falls, key=falls.__getitem__, reverse=True)
        places += [(rank, number, item) for rank, item in enumerate(order)]
    return list(dict.fromkeys(item for _, _, item in sorted(places)))
