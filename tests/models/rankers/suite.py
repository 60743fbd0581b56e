"""What every ranker keeps to. Give `RankerSuite` a fixture `ranker`, and it runs on that ranker."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from models.rankers.base import Audience, Ranker
from tests.tiny import tiny_split
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut


def scored(ranker: Ranker, users: Audience, candidates: np.ndarray) -> np.ndarray:
    """The ranker's logits."""
    return asyncio.run(ranker.score(users, candidates))


class RankerSuite:
    """The behaviour of the port `Ranker`."""

    @pytest.fixture
    def held_out(self) -> HeldOut:
        """Six users of the tiny catalogue with 20 candidates each."""
        return HeldOut.of(tiny_split(), Holdout.TEST, users=6)

    def test_it_has_a_stable_id_and_a_title(self, ranker: Ranker) -> None:
        """Lower case with underscores, so that settings and reports can name it."""
        assert ranker.id.replace("_", "").isalnum()
        assert ranker.id == ranker.id.lower()
        assert ranker.title

    def test_padding_is_never_ranked(self, ranker: Ranker, held_out: HeldOut) -> None:
        """-inf at padding, numbers elsewhere, and what is not there changes no number."""
        items = held_out.candidates.items.copy()
        whole = scored(ranker, held_out.users, items[:, :15])
        items[:, 15:] = 0
        padded = scored(ranker, held_out.users, items)
        assert np.isneginf(padded[:, 15:]).all()
        assert np.isfinite(padded[:, :15]).all()
        np.testing.assert_allclose(padded[:, :15], whole, atol=1e-4)

    def test_the_order_of_candidates_does_not_matter(self, ranker: Ranker, held_out: HeldOut) -> None:
        """Every candidate keeps its logit wherever it stands."""
        items = held_out.candidates.items
        order = np.random.default_rng(0).permutation(items.shape[1])
        straight = scored(ranker, held_out.users, items)
        shuffled = scored(ranker, held_out.users, items[:, order])
        np.testing.assert_allclose(shuffled, straight[:, order], atol=1e-4)

    def test_users_do_not_influence_each_other(self, ranker: Ranker, held_out: HeldOut) -> None:
        """Alone or among others: the same logits."""
        items = held_out.candidates.items
        together = scored(ranker, held_out.users, items)
        alone = [scored(ranker, held_out.users.part(row, row + 1), items[row : row + 1]) for row in range(len(items))]
        np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-4)

    def test_asked_again_it_says_the_same(self, ranker: Ranker, held_out: HeldOut) -> None:
        """To rounding: batches may be put together otherwise."""
        first, second = (scored(ranker, held_out.users, held_out.candidates.items) for _ in range(2))
        np.testing.assert_allclose(first, second, atol=1e-5)

    def test_a_user_without_history_is_ranked_for(self, ranker: Ranker, held_out: HeldOut) -> None:
        """Numbers, though they may all be equal."""
        nobody = Audience([""], [np.zeros(0, dtype=np.int64)])
        assert np.isfinite(scored(ranker, nobody, held_out.candidates.items[:1])).all()

    def test_nobody_and_nothing_are_ranked_at_once(self, ranker: Ranker, held_out: HeldOut) -> None:
        """No users: no rows. No candidates for a user: nothing but padding."""
        assert scored(ranker, Audience([], []), np.zeros((0, 20), dtype=np.int64)).shape == (0, 20)
        nothing = scored(ranker, held_out.users.part(0, 1), np.zeros((1, 3), dtype=np.int64))
        assert np.isneginf(nothing).all()

    def test_a_whole_catalogue_is_scored_as_candidates_are(self, ranker: Ranker, held_out: HeldOut) -> None:
        """Whoever ranks it gives every item the logit that it has among candidates, and padding none."""
        if not ranker.ranks_catalogue:
            pytest.skip("it does not rank whole catalogues")
        items = np.tile(np.arange(31), (6, 1))
        whole = asyncio.run(ranker.score_all(held_out.users, 30))
        assert np.isneginf(whole[:, 0]).all()
        np.testing.assert_allclose(whole[:, 1:], scored(ranker, held_out.users, items)[:, 1:], atol=1e-4)

    def test_ties_are_the_same_whoever_stands_first(self, ranker: Ranker, held_out: HeldOut) -> None:
        """Of the same candidate twice neither place is better."""
        items = held_out.candidates.items[:, :4].copy()
        items[:, 3] = items[:, 0]
        logits = scored(ranker, held_out.users, items)
        np.testing.assert_allclose(logits[:, 3], logits[:, 0], atol=1e-4)
