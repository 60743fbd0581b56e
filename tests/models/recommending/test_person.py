"""A person is what backbones make of a history, whoever keeps it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from models.rankers.base import Audience
from models.rankers.of_model import SECOND, signals_of
from models.recommending.person import Person, persons
from tests.tiny import tiny_contents, tiny_split

SPLIT = tiny_split()
ONE = tiny_contents(SPLIT)
TWO = replace(ONE, second=tiny_contents(SPLIT, seed=1, kind="gru4rec").backbone)
HISTORIES = [np.asarray([3, 7]), np.asarray([5])]


def test_values_make_the_same_person_again() -> None:
    for model in (ONE, TWO):
        size = model.backbone.embedding_size
        for person in persons(model, HISTORIES):
            assert len(person.values) == model.person_size
            again = Person.of_values(person.values, person.history, size)
            assert torch.equal(again.vector, person.vector)
            assert (again.second is None) is (model is ONE)
            assert again.second is None or torch.equal(again.second, person.second)


def test_the_second_backbone_is_not_asked_again() -> None:
    """What is at hand counts, and is what it would say."""
    (ranker,) = (signal for signal in signals_of(TWO) if signal.id == SECOND)
    candidates = np.asarray([[1, 2, 9]])
    person = persons(TWO, HISTORIES)[0]
    given = ranker.compute(person.audience, candidates)
    np.testing.assert_allclose(given, ranker.compute(Audience([""], HISTORIES[:1]), candidates), rtol=1e-5)
    doubled = replace(person, second=2 * person.second)
    np.testing.assert_allclose(ranker.compute(doubled.audience, candidates), 2 * given, rtol=1e-5)


def test_a_part_of_an_audience_keeps_its_vectors() -> None:
    audience = Audience(["", ""], HISTORIES, torch.zeros(2, 3), torch.arange(2)[:, None])
    assert audience.part(1, 2).seconds.tolist() == [[1]]
