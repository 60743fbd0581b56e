"""Signals without an LLM, worked out by hand, and the blend that weighs them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.bundle.blend import Blend, SignalWeight, scarcity, standardised
from models.rankers.base import Audience, Ranker, mask_padding
from models.rankers.blend import BlendRanker
from models.rankers.of_model import signals_of
from models.rankers.series import TitleSeries
from models.rankers.signals import Followed, TextSimilarity, WordOverlap, signal_rankers
from tests.models.rankers.suite import RankerSuite, scored
from tests.tiny import WEEK_SECONDS, tiny_contents, tiny_split
from training.allmrec.signals import SignalsConfig, aged_interactions, build_signals, followed_pairs, title_words
from training.data.sequences import Sequences

MODEL = tiny_contents(tiny_split())
SIGNALS = [ranker.id for ranker in signals_of(MODEL)]


@pytest.mark.parametrize("name", SIGNALS)
class TestEverySignal(RankerSuite):
    @pytest.fixture
    def ranker(self, name: str) -> Ranker:
        return next(ranker for ranker in signals_of(MODEL) if ranker.id == name)


def test_popularity_does_not_tell_the_unseen_from_what_was_met_once() -> None:
    tables = tiny_contents(tiny_split()).signals
    counts = np.log1p(np.array([0, 0, 1, 2, 9]))
    ranker = signal_rankers(replace(tables, popularity=counts))[0]
    scores = ranker.compute(Audience([""], [np.array([4])], torch.zeros(1, 1)), np.array([[1, 2, 3, 4]]))[0]
    assert scores[0] == scores[1] < scores[2] < scores[3]


class TestAge:
    """Item 1 was met twice in the first week, item 2 once 13 weeks, which is 91 days, later; item 3 never."""

    SPLIT = replace(
        tiny_split(users=2),
        train=[np.array([1]), np.array([1, 2])],
        times=Sequences.of([np.array([0, 20]) * WEEK_SECONDS, np.array([0, 13]) * WEEK_SECONDS]),
    )

    def test_an_interaction_counts_half_after_its_half_life(self) -> None:
        """By 30, 91 and 365 days before the last interaction that anything is learned from."""
        month, season, year = aged_interactions(self.SPLIT)[:4].T
        assert month == pytest.approx([0, 2 * 0.5 ** (91 / 30), 1, 0])
        assert season == pytest.approx([0, 1, 1, 0])
        assert year == pytest.approx([0, 2 * 0.5 ** (91 / 365), 1, 0])

    def test_less_than_one_interaction_counts_as_one(self) -> None:
        """So that nothing tells the unseen item 3 from those met once, or long ago."""
        tables = replace(MODEL.signals, aged=aged_interactions(self.SPLIT))
        scores = {
            ranker.id: ranker.compute(Audience([""], [np.array([1])]), np.array([[1, 2, 3]]))[0]
            for ranker in signal_rankers(tables)
            if ranker.id in ("popularity_month", "popularity_year")
        }
        assert scores["popularity_month"].tolist() == [np.float32(np.log(2))] * 3
        assert scores["popularity_year"][0] > scores["popularity_year"][1] == scores["popularity_year"][2]

    def test_without_dates_there_is_no_such_signal(self) -> None:
        assert aged_interactions(replace(self.SPLIT, times=None)) is None
        ids = {ranker.id for ranker in signal_rankers(replace(MODEL.signals, aged=None))}
        assert {name for name in ids if name.startswith("popularity")} == set()


class TestSeries:
    def test_the_rarer_a_shared_beginning_the_more_it_says(self) -> None:
        """Of six titles two begin with "toy story", three with "toy" and two with "the"; what follows is alone."""
        titles = ["", "Toy Story (1995)", "Toy Story 2 (1999)", "Toy Soldiers", "The Toy", "The Story", "Story of Toy"]
        series = TitleSeries(titles)
        found = series.rarest(np.array([1]), np.array([2, 3, 4, 6, 0]))
        assert found == pytest.approx([np.log(6 / 2), np.log(6 / 3), 0, 0, 0])
        assert series.rarest(np.array([4, 1]), np.array([5, 2])) == pytest.approx([np.log(6 / 2)] * 2)
        assert series.rarest(np.zeros(0, dtype=np.int64), np.array([1, 2])).tolist() == [0, 0]

    def test_other_titles_make_other_series(self) -> None:
        """As when titles are permuted among items: who was of a series with the history no more is."""
        titles, asked = ["", "a b", "a c", "d e", "f g"], (np.array([1]), np.array([2, 3]))
        assert (TitleSeries(titles).rarest(*asked) > 0).tolist() == [True, False]
        assert (TitleSeries([titles[item] for item in (0, 1, 3, 2, 4)]).rarest(*asked) > 0).tolist() == [False, True]

    def test_a_title_that_nobody_shares_says_nothing(self) -> None:
        """Whatever stands in the history."""
        assert TitleSeries(["", "a b", "c d"]).rarest(np.array([1]), np.array([1, 2])).tolist() == [0, 0]


class TestTexts:
    def test_cosines_with_the_mean_the_last_and_the_best(self) -> None:
        """Vectors east, north and north-east: of a history east, north the last is north."""
        tables = tiny_contents(tiny_split()).signals
        half = np.sqrt(0.5)
        vectors = np.array([[0, 0], [1, 0], [0, 1], [half, half]], dtype=np.float16)
        text = TextSimilarity(replace(tables, text_vectors=vectors))
        history, items = np.array([1, 2]), np.array([1, 2, 3])
        assert text.mean(history, items) == pytest.approx([0.5, 0.5, half], abs=1e-3)
        assert text.last(history, items) == pytest.approx([0, 1, half], abs=1e-3)
        assert text.best(history, items) == pytest.approx([1, 1, half], abs=1e-3)

    def test_rare_words_tell_more_than_common_ones(self) -> None:
        """A title that shares the rare word is nearer than one that shares the common; lone words are left out."""
        titles = ["", "red lamp", "red hammer", "old lamp", "red saw", "old red chair"]
        words, weights = title_words(titles, most=4)
        tables = replace(tiny_contents(tiny_split()).signals, words=words, word_weights=weights)
        best = WordOverlap(tables).best(np.array([1]), np.array([1, 2, 3, 4]))
        assert best[0] == pytest.approx(1.0, abs=1e-2)
        assert best[2] > best[1] == pytest.approx(best[3], abs=1e-3)

    def test_titles_without_spaces_share_what_they_have_in_common(self) -> None:
        """Chinese titles, each one unbroken run: a mouse is like a mouse, less like a lamp of its colour."""
        titles = ["", "无线鼠标黑色", "罗技无线鼠标", "黑色台灯", "儿童台灯", "儿童牙刷"]
        words, weights = title_words(titles, most=8)
        tables = replace(tiny_contents(tiny_split()).signals, words=words, word_weights=weights)
        best = WordOverlap(tables).best(np.array([1]), np.array([2, 3, 5]))
        assert best[0] > best[1] > best[2] == 0


class TestFollowed:
    def test_pairs_count_less_the_further_apart(self) -> None:
        """1 2 3: 1 and 2 count one, 1 and 3 half; both ways; an item never follows itself."""
        config = SignalsConfig(window=2, discount=0.5)
        starts, items, counts = followed_pairs([np.array([1, 2, 3]), np.array([2, 2])], 4, config)
        found = {
            (item, int(other)): float(count)
            for item in range(4)
            for other, count in zip(items[starts[item] : starts[item + 1]], counts[starts[item] :], strict=False)
        }
        assert found == {(1, 2): 1.0, (1, 3): 0.5, (2, 1): 1.0, (2, 3): 1.0, (3, 1): 0.5, (3, 2): 1.0}

    def test_only_the_most_frequent_pairs_are_kept(self) -> None:
        """Of an item that met three others, the two that it met most often."""
        sequences = [np.array([1, other]) for other in (2, 2, 2, 3, 4, 4)]
        starts, items, _ = followed_pairs(sequences, 5, SignalsConfig(most_pairs=2))
        assert items[starts[1] : starts[2]].tolist() == [2, 4]

    def test_an_unseen_item_stands_where_its_like_stand(self) -> None:
        """Item 4 was never met but reads like item 2, which follows item 1; item 3 does neither."""
        split = tiny_split(users=40, items=8, unseen=1)
        split = replace(split, train=[np.array([1, 2])] * 39 + [np.array([5, 3])])
        split.catalogue.interactions[:] = np.bincount(np.concatenate(list(split.train)), minlength=9)
        texts = np.eye(9, 5, k=-1)
        texts[4] = texts[2]
        tables = build_signals(split, texts, SignalsConfig(neighbours=1))
        near = Followed(tables)
        direct = near.direct(np.array([1]), np.array([2, 3, 4]))
        by_like = near.by_neighbours(np.array([1]), np.array([2, 3, 4]))
        assert direct[0] > direct[1] == direct[2] == 0.0
        assert by_like[2] > by_like[1] == pytest.approx(0.0, abs=1e-6)


class Given(Ranker):
    """Scores by item number."""

    def __init__(self, id: str, scores: list[float]) -> None:  # noqa: A002
        self.id, self.title = id, id
        self._scores = np.array([0.0, *scores])
        self.asked = 0

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:  # noqa: ARG002
        self.asked += 1
        return mask_padding(self._scores[candidates_E_C], candidates_E_C)


class TestBlend:
    def signal(self, name: str, **values: float) -> SignalWeight:
        fields = {"mean": 0.0, "scale": 1.0, "weight": 0.0, "scarcity_weight": 0.0, **values}
        return SignalWeight(id=name, title=name, centred=False, **fields)

    def test_logits_are_the_formula(self) -> None:
        """(w + v s)(x - mean)/scale + b s, by hand for an item with 4 interactions and one with none."""
        blend = Blend(
            signals=(self.signal("a", mean=1.0, scale=2.0, weight=3.0, scarcity_weight=-1.0),),
            cold_below=2.0,
            scarcity_bias=-0.5,
        )
        found = blend.logits({"a": np.array([[5.0, 2.0]])}, np.array([[4, 0]]))
        assert scarcity(np.array([4, 1, 0]), 2.0).tolist() == [0.5, 1.0, 1.0]
        assert found[0] == pytest.approx([(3 - 0.5) * 2.0 - 0.25, (3 - 1) * 0.5 - 0.5])

    def test_log_probabilities_are_centred_among_the_candidates(self) -> None:
        """Of a set twice as large each is half as likely; that says nothing of an item. Padding stays 0."""
        scores = np.array([[-1.0, -3.0, -np.inf]])
        assert standardised(scores, True, 0.0, 1.0)[0].tolist() == [1.0, -1.0, 0.0]

    def test_signals_that_do_not_count_are_not_computed(self) -> None:
        """Rankers that are not in the blend are not asked."""
        first, second = Given("a", [1.0, 2.0]), Given("b", [5.0, 0.0])
        blend = Blend(signals=(self.signal("a", weight=1.0),), cold_below=1.0)
        ranker = BlendRanker("blend", "Blend", blend, {"a": first, "b": second}, np.array([0, 9, 9]))
        logits = scored(ranker, Audience([""], [np.array([1])]), np.array([[1, 2, 0]]))
        assert logits[0, 1] > logits[0, 0]
        assert np.isneginf(logits[0, 2])
        assert (first.asked, second.asked) == (1, 0)


class TestBlendAsRanker(RankerSuite):
    @pytest.fixture
    def ranker(self) -> Ranker:
        split = tiny_split()
        rankers = {ranker.id: ranker for ranker in signal_rankers(tiny_contents(split).signals)}
        signal = TestBlend().signal
        signals = (signal("words_best", weight=1.0, scarcity_weight=0.3), signal("followed", weight=2.0))
        blend = Blend(signals=signals, cold_below=2.0, scarcity_bias=-1.0)
        return BlendRanker("blend", "Blend", blend, rankers, split.catalogue.interactions)
