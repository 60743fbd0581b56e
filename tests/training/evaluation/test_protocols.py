"""Protocols: who is asked what, worked out by hand on catalogues of a few items."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from rich.console import Console

from models.bundle.index import ItemIndex
from models.catalogue import Catalogue
from models.rankers.base import Audience, Ranker, mask_padding
from models.rankers.simple import PopularityRanker
from models.recommending.person import Person
from models.recommending.retrieve import IndexFinder, Pool
from models.recommending.serving import Serving
from tests.tiny import tiny_contents, tiny_split
from training.data.splits import Holdout
from training.evaluation import protocols
from training.evaluation.candidates import Candidates, draw_by_weight
from training.evaluation.corrected import CorrectedRanker
from training.evaluation.evaluate import EvaluationConfig, Field, Occasion, ask_field
from training.evaluation.held_out import HeldOut
from training.evaluation.measures import SHUFFLED_HISTORIES, UNIFORM
from training.evaluation.protocols import FullCatalogue, Protocol, Sampled, Served, ask_all, full_ranks, popular
from training.evaluation.retrieval import FinderRetriever, IndexRetriever
from training.evaluation.tables import ScoreTables
from training.runs.context import RunContext


class ByNumber(Ranker):
    """The higher an item's number, the better."""

    id, title = "by_number", "By number"
    ranks_catalogue = True

    async def score(self, _: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        return mask_padding(candidates_E_C.astype(np.float64), candidates_E_C)


class Costly(ByNumber):
    """The lower, the better; and it takes its time."""

    id, title = "costly", "Costly"
    needs_llm, ranks_catalogue = True, False

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    async def score(self, _: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        self.asked.append(candidates_E_C.shape)
        return mask_padding(-candidates_E_C.astype(np.float64), candidates_E_C)


def held_out_of(histories: list[list[int]], positives: list[int], items: int = 6) -> HeldOut:
    """On a catalogue in which item i has i - 1 interactions."""
    names = [f"i{number}" for number in range(items)]
    catalogue = Catalogue(names, names, [""] * items, [()] * items, np.arange(items))
    audience = Audience([""] * len(histories), [np.asarray(history, dtype=np.int64) for history in histories])
    columns = np.asarray(positives, dtype=np.int64)[:, None]
    return HeldOut(catalogue, Candidates(np.arange(len(histories)), columns), audience, {})


class TestPopular:
    def test_negatives_are_new_to_the_user_and_have_interactions(self) -> None:
        """Of six items one has none, two are known and one is looked for: two are left, then padding."""
        items = held_out_of([[2, 3]], [4]).among_popular(negatives=3).candidates.items
        assert items[0, 0] == 4
        assert sorted(items[0, 1:3].tolist()) == [5, 6]
        assert items[0, 3] == 0

    def test_who_met_all_that_can_be_drawn_is_left_out(self) -> None:
        """The first user's only other item has no interactions: alone, any positive would be first."""
        popular = held_out_of([[2, 3, 5, 6], [2]], [4, 4]).among_popular()
        assert popular.candidates.users.tolist() == [1]
        assert len(popular.users.histories) == 1

    def test_they_are_drawn_by_their_interactions(self) -> None:
        """Weights 1 3 6: drawn first in a tenth, three and six tenths of 20,000 draws, and each at most once."""
        rng = np.random.default_rng(0)
        weights = np.array([0.0, 1.0, 3.0, 6.0, 9.0])
        drawn = np.array([draw_by_weight(weights, np.array([4]), 3, rng) for _ in range(20_000)])
        np.testing.assert_allclose(np.bincount(drawn[:, 0], minlength=5)[1:4] / 20_000, [0.1, 0.3, 0.6], atol=0.015)
        assert (np.sort(drawn, axis=1) == [1, 2, 3]).all()
        second = drawn[drawn[:, 0] == 3, 1]
        np.testing.assert_allclose(np.mean(second == 2), 3 / 4, atol=0.015)

    def test_they_are_the_same_whoever_else_is_evaluated(self) -> None:
        """A user's negatives follow from seed and user."""
        held_out = HeldOut.of(tiny_split(), Holdout.TEST)
        some = held_out.at_most(5)
        rows = np.isin(held_out.candidates.users, some.candidates.users)
        whole = held_out.among_popular(seed=3).candidates.items[rows]
        np.testing.assert_array_equal(some.among_popular(seed=3).candidates.items, whole)
        assert not np.array_equal(some.among_popular(seed=4).candidates.items, whole)


class TestFullCatalogue:
    def test_what_the_user_knows_is_in_nobodys_way(self) -> None:
        """Item 4 of 6 by number: behind 5 and 6; whoever knows 6 sees it second, whoever knows it itself third."""
        held_out = held_out_of([[1], [6, 2], [4]], [4, 4, 4])
        ranks = asyncio.run(FullCatalogue(held_out).ask(ByNumber(), held_out))
        assert ranks.tolist() == [3, 2, 3]

    def test_ties_count_against_the_positive(self) -> None:
        """Also among all items."""
        assert full_ranks(np.zeros((1, 7)), [np.array([2, 2])], np.array([3])).tolist() == [5]

    def test_chance_has_as_many_choices_as_the_user_has_new_items(self) -> None:
        """Five of six after one, four after two; a repeat is a choice."""
        facts = FullCatalogue(held_out_of([[1], [6, 2], [4]], [4, 4, 4])).facts(0)
        assert facts["choices"].tolist() == [5, 4, 6]

    def test_only_those_who_can_are_asked(self) -> None:
        protocol = FullCatalogue(held_out_of([[1]], [4]))
        assert [protocol.admits(ranker) for ranker in (ByNumber(), Costly())] == [True, False]


class TestServed:
    """On the tiny catalogue of 30 items, with an index whose only vector says: the higher the number, the better."""

    @pytest.fixture
    def serving(self) -> Serving:
        return self.serve(retrieved=8, window=3)

    @staticmethod
    def serve(retrieved: int, window: int) -> Serving:
        return Serving(ByNumberModel(), ByNumber(), retrieved, window)  # type: ignore[arg-type]

    def test_the_best_new_items_are_retrieved(self, serving: Serving) -> None:
        """Best first, without what was seen."""
        users = Audience(["", ""], [np.array([30, 28]), np.array([1])])
        assert serving.retrieve(users).tolist() == [
            [29, 27, 26, 25, 24, 23, 22, 21],
            [30, 29, 28, 27, 26, 25, 24, 23],
        ]

    def test_a_positive_that_is_not_retrieved_is_ranked_nowhere(self, serving: Serving) -> None:
        """29 is found and first; 3 is not among the first eight, and 30 was seen: both stand behind all."""
        held_out = held_out_of([[30], [30], [30]], [29, 3, 30], items=30)
        protocol = Served(held_out, serving)
        tables = ask_here(protocol, [ByNumber()])
        assert tables.ranks("by_number").tolist() == [1, 9, 9]

    def test_the_llm_ranks_a_window_and_the_rest_keeps_its_order(self, serving: Serving) -> None:
        """Retrieved are 29 28 27 | 26 ...: the LLM turns the first three round."""
        held_out = held_out_of([[30]] * 4, [29, 27, 26, 22], items=30)
        llm = Costly()
        tables = ask_here(Served(held_out, serving), [llm])
        assert tables.ranks("costly").tolist() == [3, 1, 4, 8]
        assert {shape[1] for shape in llm.asked} == {3}

    def test_an_llm_that_ranks_catalogues_has_no_window(self, serving: Serving) -> None:
        """As user encoder it costs the same for all eight that are retrieved: turned round, 29 is last."""
        llm = Costly()
        llm.ranks_catalogue = True
        tables = ask_here(Served(held_out_of([[30]] * 3, [29, 27, 22], items=30), serving), [llm])
        assert tables.ranks("costly").tolist() == [8, 6, 1]

    def test_popular_candidates_are_windowed_for_the_llm_too(self) -> None:
        """100 of them have no room in a prompt."""
        llm = Costly()
        ask_here(popular(HeldOut.of(tiny_split(), Holdout.TEST), 0, self.serve(100, 20)), [llm])
        assert {shape[1] for shape in llm.asked} == {20}

    def test_a_ranker_that_is_told_the_odds_of_negatives(self, tmp_path: Path) -> None:
        """Its logits less log q, and it takes part only where negatives are drawn by q."""
        held_out = held_out_of([[2], [2]], [3, 5], items=30)
        interactions = held_out.catalogue.interactions
        told = CorrectedRanker(ByNumber(), interactions)
        items = np.asarray([[3, 7, 0], [5, 1, 4]])
        logits = asyncio.run(told.score(held_out.users, items))
        np.testing.assert_allclose(logits[0, :2], [3 - np.log(3), 7 - np.log(7)])
        assert logits[0, 2] == -np.inf
        field = Field([ByNumber()], "by_number", corrected=[told])
        run = RunContext(tmp_path, Console(quiet=True))
        tables = asyncio.run(ask_field(Occasion(held_out), field, EvaluationConfig(), run))
        taking_part = {name for name, table in tables.items() if "by_number_corrected" in table}
        assert taking_part == {"popular"}

    def test_what_finds_may_be_another(self) -> None:
        """As a blend of several sources does: here the least by number, best last."""

        class Backwards:
            def find(self, pool: Pool, person: Person) -> np.ndarray:  # noqa: ARG002
                return np.asarray([item for item in range(1, 31) if item not in pool.excluded][: pool.count])

        serving = Serving(ByNumberModel(), ByNumber(), 3, 3, Backwards())  # type: ignore[arg-type]
        held_out = held_out_of([[2], [2]], [3, 9], items=30)
        assert serving.retrieve(held_out.users).tolist() == [[1, 3, 4], [1, 3, 4]]
        ranks = FinderRetriever("x", "X", serving.model, Backwards()).ranks(held_out)  # type: ignore[arg-type]
        assert ranks.tolist() == [2, 8]

    def test_a_repeat_counts_as_new_where_retrieval_is_measured(self) -> None:
        """As among candidates: 2 is found though the history has it, and 1 is not."""
        model, finder = tiny_contents(tiny_split()), IndexFinder(tiny_contents(tiny_split()))
        held_out = held_out_of([[2, 1]], [2], items=30)
        own = IndexRetriever("i", "I", model.backbone, model.index, model.cf_vectors).ranks(held_out)
        assert FinderRetriever("f", "F", model, finder).ranks(held_out).tolist() == own.tolist()
        assert np.isfinite(own).all()

    def test_a_real_model_serves(self) -> None:
        """With the tiny catalogue's own index, everything not seen is among 100 of 30 items."""
        model = tiny_contents(tiny_split())
        held_out = HeldOut.of(tiny_split(), Holdout.TEST, users=7)
        found = Serving(model, ByNumber()).retrieve(held_out.users)
        for items, history in zip(found, held_out.users.histories, strict=True):
            assert set(items[items > 0].tolist()) == set(range(1, 31)) - set(history.tolist())


class ByNumberModel:
    """A catalogue of 30 items whose index searches by number."""

    def __init__(self) -> None:
        self.index = ItemIndex.build(np.arange(31, dtype=np.float32)[:, None])
        self.catalogue = range(30)

    def user_vectors(self, histories: list[np.ndarray], _: object) -> torch.Tensor:
        return torch.ones(len(histories), 1)

    def second_vectors(self, histories: list[np.ndarray]) -> None:
        """There is no second backbone."""


def ask_here(protocol: Protocol, rankers: list[Ranker]) -> ScoreTables:
    """What the rankers say."""
    with TemporaryDirectory() as directory:
        run = RunContext(Path(directory), Console(quiet=True))
        return asyncio.run(ask_all(protocol, rankers, len(protocol.held_out), run))


class TestTables:
    def test_slow_rankers_are_asked_about_fewer(self, tmp_path: Path) -> None:
        """Five of 40 users spread evenly; the others have no rank, and both kinds are read back."""
        held_out = HeldOut.of(tiny_split(), Holdout.TEST)
        run = RunContext(tmp_path, Console(quiet=True))
        rankers = [PopularityRanker(held_out.catalogue.interactions), Costly()]
        asyncio.run(ask_all(Sampled(SHUFFLED_HISTORIES, held_out), rankers, 5, run))
        again = asyncio.run(ask_all(Sampled(SHUFFLED_HISTORIES, held_out), rankers, 5, run))
        assert np.flatnonzero(~np.isnan(again.ranks("costly"))).tolist() == [0, 9, 19, 29, 39]
        assert not np.isnan(again.ranks("popularity")).any()
        assert len(rankers[1].asked) == 1

    def test_what_was_made_from_something_else_is_not_gone_on_from(self, tmp_path: Path) -> None:
        """Same users and candidates, other weights: the scores of before would be another model's."""
        held_out, run = HeldOut.of(tiny_split(), Holdout.TEST), RunContext(tmp_path, Console(quiet=True))
        first, second = Costly(), Costly()
        for ranker, fingerprint in ((first, "a"), (second, "b")):
            run.fingerprint = fingerprint
            asyncio.run(ask_all(Sampled(UNIFORM, held_out), [ranker], 40, run))
        assert first.asked
        assert second.asked == first.asked

    def test_what_a_slow_ranker_said_before_it_was_stopped_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Users are asked about once, whether in one go or in two, and what is kept is whole."""
        monkeypatch.setattr(protocols, "SLOW_PART", 16)
        held_out, run = HeldOut.of(tiny_split(), Holdout.TEST), RunContext(tmp_path, Console(quiet=True))
        whole = ask_here(Sampled(UNIFORM, held_out), [Costly()]).scores("costly")
        stopped = Costly()

        async def stop(users: Audience, candidates: np.ndarray) -> np.ndarray:
            if stopped.asked:
                raise KeyboardInterrupt
            return await Costly.score(stopped, users, candidates)

        stopped.score = stop
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(ask_all(Sampled(UNIFORM, held_out), [stopped], 40, run))
        assert ScoreTables.load(UNIFORM, tmp_path).ranker_ids == []
        again = Costly()
        found = asyncio.run(ask_all(Sampled(UNIFORM, held_out), [again], 40, run))
        assert (len(stopped.asked), len(again.asked)) == (1, 2)
        assert np.array_equal(found.scores("costly"), whole)
        assert ScoreTables.load(UNIFORM, tmp_path).ranker_ids == ["costly"]

    def test_a_damaged_table_is_as_none(self, tmp_path: Path) -> None:
        held_out, run = HeldOut.of(tiny_split(), Holdout.TEST), RunContext(tmp_path, Console(quiet=True))
        (tmp_path / UNIFORM.file).write_bytes(b"PK torn")
        asyncio.run(ask_all(Sampled(UNIFORM, held_out), [Costly()], 40, run))
        assert "costly" in ScoreTables.load(UNIFORM, tmp_path)
