"""The evaluation: the same question to every ranker, and numbers that can be worked out by hand."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.placement import Placement
from models.bundle.index import ItemIndex
from models.catalogue import Catalogue
from models.prompts.template import PromptConfig
from models.rankers.base import Audience, Ranker, mask_padding
from models.rankers.llm import LLMRanker
from tests.tiny import CF_SIZE, JOINT_SIZE, sequel_split, tiny_contents, tiny_llm, tiny_split
from training import baselines
from training.allmrec.contenders import Contenders
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.data.splits import Holdout, SequenceSplit
from training.evaluation import methods
from training.evaluation.candidates import Candidates
from training.evaluation.comparison import RankerReport
from training.evaluation.evaluate import EvaluationConfig, EvaluationReport, Field, Occasion, evaluate, recompute
from training.evaluation.held_out import HeldOut
from training.evaluation.methods import find_methods
from training.evaluation.metrics import Estimate, rank_correlation
from training.evaluation.report import JSON_FILE, markdown, table, write_report
from training.evaluation.retrieval import retrieval_ranks
from training.runs.context import RunContext

SIZES = AlignmentConfig(cf_size=CF_SIZE, text_size=CF_SIZE, joint_size=JOINT_SIZE // 2)


class TestRankCorrelation:
    def test_equal_and_reversed_orders(self) -> None:
        """1 and -1, whatever the scale; their mean is 0."""
        scores = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
        assert rank_correlation(scores, np.exp(scores)) == pytest.approx(1.0)
        assert rank_correlation(scores, -scores) == pytest.approx(-1.0)
        assert rank_correlation(scores, scores * np.array([[1.0], [-1.0]])) == pytest.approx(0.0)

    def test_padding_is_left_out(self) -> None:
        """Orders 1 2 3 4 and 1 2 4 3 of the four real ones: 1 - 6 * 2 / (4 * 15) = 0.8."""
        reference = np.array([[1.0, 2.0, 3.0, 4.0, -np.inf]])
        scores = np.array([[1.0, 2.0, 4.0, 3.0, -np.inf]])
        assert rank_correlation(scores, reference) == pytest.approx(0.8)


def test_retrieval_counts_only_what_the_user_does_not_know() -> None:
    """Items on a line: the user at 1 meets 5, 4, 3, ... first; knowing 5 and 4 puts item 3 first."""
    vectors = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]], dtype=np.float32)
    index = ItemIndex.build(vectors)
    users = np.ones((2, 1), dtype=np.float32)
    histories = [np.array([5, 4]), np.array([1])]
    held_out = HeldOut(
        catalogue_of(5), Candidates(np.arange(2), np.array([[3], [3]])), Audience(["", ""], histories), {}
    )
    assert retrieval_ranks(index, users, held_out).tolist() == [1, 3]


def catalogue_of(items: int) -> Catalogue:
    names = [f"i{number}" for number in range(items)]
    return Catalogue(names, names, [""] * items, [()] * items, [1] * items)


def tiny_contenders(
    interface: bool = False, series_weight: float | None = None, unseen_sign: float = 1.0
) -> tuple[SequenceSplit, Contenders]:
    """A-LLMRec on a tiny catalogue; stage 1 gives the backbone's vectors, or turns those of unseen items round."""
    split, llm = tiny_split(users=60) if series_weight is None else sequel_split(), tiny_llm(interface)
    model = tiny_contents(split)
    if series_weight is not None:
        last = model.projector.user.output
        last.weight.data.zero_()
        last.bias.data.copy_(llm.interface.series_axis * series_weight / llm.interface.coupling)
    own = model.backbone.item_vectors.detach()
    signs = torch.where(torch.from_numpy(split.catalogue.trained), 1.0, unseen_sign)
    nothing = torch.zeros_like(own)
    placement = Placement(own, own, model.cf_vectors, own * signs[:, None], nothing)
    model = replace(model, decoded_item=placement.decoded_item, decoded_text=placement.decoded_text)
    aligned = Aligned(model.backbone, Alignment(SIZES), torch.nn.Module(), nothing, placement)
    inputs = Stage2Inputs(split, model, ItemTexts(nothing, nothing), llm, PromptConfig())
    return split, Contenders(inputs, aligned, model)


def tiny_report(directory: Path, **options: Any) -> EvaluationReport:
    split, contenders = tiny_contenders(**options)
    run = RunContext(directory, Console(quiet=True))
    directory.mkdir(exist_ok=True)
    others = [ranker for name in ("chance", "popularity") for ranker in find_methods(baselines)[name](split, run)]
    config = EvaluationConfig(users=25, llm_users=10, check_users=8, resamples=200)
    occasion = Occasion(HeldOut.of(split, Holdout.TEST), HeldOut.of(split, Holdout.VALIDATION, users=25))
    report = evaluate(occasion, contenders.among(others), config, run)
    genres = asyncio.run(contenders.genres(config.users, config.seed))
    return report.model_copy(update={"dataset": "tiny", "llm": "tiny", **dict(genres)})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    return tiny_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def with_interface(tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    return tiny_report(tmp_path_factory.mktemp("interface"), interface=True, unseen_sign=-1.0)


def test_an_interrupted_evaluation_goes_on(
    report: EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third of four LLM variants, it ranks the last two only and reports what it would have."""
    calls = []
    score = LLMRanker.score

    async def interrupted(self: LLMRanker, *arguments: Any) -> np.ndarray:
        calls.append(self.id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return await score(self, *arguments)

    monkeypatch.setattr(LLMRanker, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny_report(tmp_path)
    assert tiny_report(tmp_path) == report
    assert calls[:5] == ["llm_only", "allmrec_no_user", "allmrec", "allmrec", "allmrec_text"]


def test_every_figure_follows_from_the_saved_tables(tmp_path: Path) -> None:
    """Worked out again from files, and by hand from the arrays: Hit@1, NDCG@10 and what permuted titles cost."""
    report = tiny_report(tmp_path, interface=True)
    assert recompute(report, tmp_path) == report
    with np.load(tmp_path / "scores.npz") as saved, np.load(tmp_path / "scores-permuted-titles.npz") as permuted:
        scores, rows = saved["tokens"], permuted["fewer"]
        hits = saved["allmrec"][:, 1:].max(axis=1) < saved["allmrec"][:, 0]
        without = permuted["allmrec"][:, 1:].max(axis=1) < permuted["allmrec"][:, 0]
    ranks = 1 + (scores[:, 1:] >= scores[:, :1]).sum(axis=1)
    gains = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0)
    assert report.rankers["tokens"].groups["overall"].metrics["ndcg@10"].mean == pytest.approx(gains.mean())
    assert report.rankers["allmrec"].groups["overall"].metrics["hit@1"].mean == pytest.approx(hits.mean())
    loss = report.checks["permuted_titles"].losses["allmrec"]["overall"]["hit@1"]
    assert loss.mean == pytest.approx(hits[rows].mean() - without.mean())


def test_scores_of_other_candidates_are_not_gone_on_from(tmp_path: Path) -> None:
    """Another seed draws other negatives: what was scored before says nothing of them."""
    split = tiny_split(users=60)
    run = RunContext(tmp_path, Console(quiet=True))

    def hits(seed: int) -> RankerReport:
        chance = find_methods(baselines)["popularity"](split, run)
        field = nullcontext(Field(chance, "popularity"))
        config = EvaluationConfig(users=60, resamples=50, seed=seed)
        return evaluate(Occasion(HeldOut.of(split, Holdout.TEST, seed)), field, config, run).rankers["popularity"]

    assert hits(0) != hits(1)


class MostRecent(Ranker):
    """The item that the user met last, and nothing else."""

    id, title = "most_recent", "Most recent"

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        last = np.asarray([history[-1] for history in users.histories])
        return mask_padding(candidates_E_C == last[:, None], candidates_E_C)


def test_a_new_ranker_changes_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered here as a method, it stands in report, table and picture beside the others, under its own title."""
    monkeypatch.setattr(methods, "METHODS", {})
    methods.method("most_recent")(lambda _split, _run: [MostRecent()])
    split = tiny_split(users=60)
    split.test[::2] = [split.validation[user] for user in range(0, 60, 2)]
    run = RunContext(tmp_path, Console(quiet=True))
    rankers = [ranker for fit in dict(methods.METHODS).values() for ranker in fit(split, run)]
    config = EvaluationConfig(users=60, resamples=50)
    occasion = Occasion(HeldOut.of(split, Holdout.TEST))
    found = evaluate(occasion, nullcontext(Field(rankers, "most_recent")), config, run)
    assert found.rankers["most_recent"].groups["overall"].metrics["hit@1"].mean == pytest.approx(0.5)
    write_report(found, tmp_path)
    assert "| Most recent |" in (tmp_path / "report.md").read_text()


def test_two_rankers_of_one_id_are_refused() -> None:
    """A report could not tell them apart."""
    with pytest.raises(ValueError, match="same id"):
        Field([MostRecent(), MostRecent()], "most_recent")


class TestChecks:
    """What rankers lose says what they use."""

    def test_the_backbone_does_not_read_titles_but_order(self, report: EvaluationReport) -> None:
        """Permuted titles change nothing of it, for any user; shuffled histories may."""
        titles, order = (
            report.checks[name].losses["sasrec"]["overall"] for name in ("permuted_titles", "shuffled_histories")
        )
        assert (titles["hit@1"].low, titles["hit@1"].high) == (0.0, 0.0)
        assert (order["ndcg@10"].low, order["ndcg@10"].high) != (0.0, 0.0)

    def test_rankers_without_texts_are_left_out_of_the_titles(self, report: EvaluationReport) -> None:
        """Nobody made them with permuted texts; with shuffled histories all are asked."""
        assert set(report.checks["shuffled_histories"].losses) == set(report.rankers)
        assert set(report.rankers) - set(report.checks["permuted_titles"].losses) == {"random", "popularity"}


class TestFewerUsers:
    """LLMs are asked about 10 of 25 under the protocols beside the first."""

    def test_all_rankers_of_a_protocol_are_compared_on_the_same(self, tmp_path: Path) -> None:
        """SASRec's figures are of the ten, by loops over what it said; those of all 25 stand beside."""
        report = tiny_report(tmp_path)
        popular = report.protocols["popular"]
        assert (popular.users, popular.shared_users) == (25, 10)
        assert {ranker.groups["overall"].users for ranker in popular.rankers.values()} == {10}
        assert not popular.rankers["allmrec"].of_all
        with np.load(tmp_path / "scores-popular.npz") as saved:
            scores, told = saved["sasrec"], saved["fewer"]
        hits = np.asarray([all(other < row[0] for other in row[1:] if np.isfinite(other)) for row in scores])
        sasrec = popular.rankers["sasrec"]
        assert sasrec.groups["overall"].metrics["hit@1"].mean == pytest.approx(hits[told].mean())
        assert sasrec.of_all["overall"].metrics["hit@1"].mean == pytest.approx(hits.mean())
        assert sasrec.of_all["overall"].users == 25
        means = [popular.rankers[name].groups["overall"].metrics["hit@1"].mean for name in ("popularity", "sasrec")]
        found = popular.rankers["popularity"].differences["sasrec"]["overall"]["hit@1"]
        assert found.mean == pytest.approx(means[0] - means[1])

    def test_the_count_is_in_the_heading(self, report: EvaluationReport) -> None:
        """On paper with the figure of all asked at the right, in the terminal under the column's name."""
        (part,) = [part for part in markdown(report).split("## ") if part.startswith(report.protocols["served"].title)]
        head, _, *rows = [line.split(" | ") for line in part.splitlines() if line.startswith("|")]
        assert head[:2] == ["| Ranker", "NDCG@10 (10)"]
        assert head[-1] == "NDCG@10 of all asked |"
        (allmrec,) = [row for row in rows if row[0] == "| A-LLMRec"]
        (sasrec,) = [row for row in rows if row[0] == f"| {report.rankers['sasrec'].title}"]
        assert allmrec[-1] == f"{allmrec[1]}, 10 |"
        assert sasrec[-1].endswith(", 25 |")
        shown = [str(column.header) for column in table(report).columns]
        assert shown[-2:] == ["full", "served\n(10)"]


class TestOpponent:
    def test_it_is_the_best_without_an_llm_on_validation(self, report: EvaluationReport) -> None:
        """By NDCG@10 there, whatever it has on test items."""
        without = {name for name, entry in report.entries.items() if not entry.needs_llm}
        assert set(report.validation) == without
        assert report.validation[report.opponent] == max(report.validation.values())
        assert report.default_ranker == "allmrec"
        assert report.opponent in report.rankers["allmrec"].differences


class TestProtocols:
    def test_each_has_its_metrics_for_all_who_can(self, report: EvaluationReport) -> None:
        """LLMs are not asked about whole catalogues; whoever is asked has an interval."""
        assert set(report.protocols) == {"popular", "full", "served"}
        assert (
            set(report.protocols["popular"].rankers) == set(report.protocols["served"].rankers) == set(report.rankers)
        )
        full = report.protocols["full"].rankers
        assert {"random", "popularity", "sasrec", "stage1_item"} <= set(full)
        assert not {name for name in full if report.entries[name].needs_llm}
        assert set(full["sasrec"].groups["overall"].metrics) == {"ndcg@10", "hit@1", "recall@20", "recall@100"}

    def test_chance_is_said(self, report: EvaluationReport) -> None:
        """One of 20 in all, or of what the tiny catalogue has left."""
        assert report.chance["hit@1"] == pytest.approx(1 / 20)
        assert "chance has Hit@1 0.050" in str(table(report).caption)
        assert "Chance has Hit@1 0.050" in markdown(report)

    @pytest.mark.parametrize(("high", "told"), [(0.04, True), (0.06, False)])
    def test_who_is_certainly_worse_than_chance_is_said(
        self, report: EvaluationReport, high: float, told: bool
    ) -> None:
        """Of items that nobody met; some users without a hit are not enough."""
        popularity = report.rankers["popularity"]
        unseen = popularity.groups["unseen"]
        hits = {"hit@1": Estimate(mean=0.0, low=0.0, high=high)}
        unseen = unseen.model_copy(update={"metrics": unseen.metrics | hits})
        popularity = popularity.model_copy(update={"groups": popularity.groups | {"unseen": unseen}})
        changed = report.model_copy(update={"rankers": report.rankers | {"popularity": popularity}})
        assert ("Chance has 0.050 here. Below it: Popularity (0.000)." in markdown(changed)) == told

    def test_probabilities_have_a_calibration(self, report: EvaluationReport) -> None:
        """Every ranker's, between 0 and 1."""
        assert all(0 <= ranker.calibration_error <= 1 for ranker in report.rankers.values())


class TestTokens:
    """What the injected tokens say, where the LLM has an interface."""

    def test_without_an_interface_tokens_say_nothing(self, report: EvaluationReport) -> None:
        """No row, no correlation."""
        assert "tokens" not in report.rankers
        assert {ranker.reading_correlation for ranker in report.rankers.values()} == {None}

    def test_every_variant_is_held_against_its_own_tokens(self, with_interface: EvaluationReport) -> None:
        """The text variant against texts; prompts without all tokens against nothing."""
        rankers = with_interface.rankers
        for name in ("allmrec", "allmrec_text"):
            assert -1 <= rankers[name].reading_correlation <= 1
        for name in ("llm_only", "allmrec_no_user", "sasrec"):
            assert rankers[name].reading_correlation is None

    def test_tokens_are_read_with_the_titles(self, tmp_path: Path) -> None:
        """Where second parts come next, a weight of series finds most of them, and a negative one none."""
        liked, disliked = (
            tiny_report(tmp_path / str(weight), interface=True, series_weight=weight)
            .rankers["tokens"]
            .groups["overall"]
            .metrics["hit@1"]
            .mean
            for weight in (50.0, -50.0)
        )
        assert liked > 0.4
        assert disliked < 0.1

    def test_the_favourite_genre_is_on_paper(self, with_interface: EvaluationReport) -> None:
        """Every way of guessing, with its interval."""
        text = markdown(with_interface)
        for name, share in with_interface.genres.items():
            then = with_interface.next_genres[name]
            shown = [f"{each.mean:.3f} ({each.low:.3f} to {each.high:.3f})" for each in (share, then)]
            assert f"| {name} | {' | '.join(shown)} |" in text
        assert len(with_interface.genres) == 5


class TestEvaluate:
    def test_every_ranker_answers_for_the_same_users(self, report: EvaluationReport) -> None:
        """25 of 60 users, all rankers of the paper's tables that this project has."""
        assert list(report.rankers)[:3] == ["random", "popularity", "sasrec"]
        assert {"llm_only", "allmrec_no_user", "allmrec", "allmrec_text"} < set(report.rankers)
        assert {ranker.groups["overall"].users for ranker in report.rankers.values()} == {25}
        assert report.users == 60
        assert report.all_users["sasrec"]["overall"].users == 60

    def test_stage_1_that_reproduces_the_backbone_ranks_like_it(self, report: EvaluationReport) -> None:
        """Decoded vectors equal to the backbone's: same ranks, correlation 1."""
        assert report.rankers["stage1_item"].groups == report.rankers["sasrec"].groups
        assert report.rankers["stage1_item"].rank_correlation == pytest.approx(1.0)

    def test_what_the_backbone_does_not_know_has_a_correlation_without_it(
        self, with_interface: EvaluationReport
    ) -> None:
        """Only unseen items' vectors are turned round: among known items the order is the backbone's."""
        stage1 = with_interface.rankers["stage1_item"]
        assert stage1.known_correlation == pytest.approx(1.0)
        assert stage1.rank_correlation < 0.99

    def test_correlations_are_on_paper_in_their_order(self, with_interface: EvaluationReport) -> None:
        """With the backbone, among known items, with what is read."""
        found = with_interface.rankers["allmrec"]
        expected = (found.rank_correlation, found.known_correlation, found.reading_correlation)
        (overall,) = [part for part in markdown(with_interface).split("## ") if part.startswith("Orders alike")]
        (row,) = [line for line in overall.splitlines() if line.startswith("| A-LLMRec |")]
        assert row.endswith("".join(f"| {value:.3f} " for value in expected) + "|")

    def test_a_ranker_without_an_opinion_ranks_last(self, report: EvaluationReport) -> None:
        """Ties count against the positive, so vectors of zeros are never a hit."""
        assert report.rankers["stage1_text"].groups["overall"].metrics["hit@10"].mean == 0.0

    def test_groups_are_by_the_positive(self, report: EvaluationReport) -> None:
        """Unseen positives are cold ones, and warm and cold share no user."""
        groups = report.rankers["allmrec"].groups
        assert 0 < groups["unseen"].users <= groups["cold"].users
        assert groups["warm"].users + groups["cold"].users <= 25
        assert groups["new"].users == 25

    def test_differences_are_those_of_the_means(self, report: EvaluationReport) -> None:
        """To the backbone, in every group that has users; it differs from itself by nothing."""
        backbone = report.rankers["sasrec"]
        for ranker in report.rankers.values():
            assert set(ranker.differences) == {"sasrec", report.opponent}
            differences = ranker.differences["sasrec"]
            assert set(differences) == {name for name, found in ranker.groups.items() if found.users}
            for name, difference in differences.items():
                for metric, estimate in difference.items():
                    means = [found.groups[name].metrics[metric].mean for found in (ranker, backbone)]
                    assert estimate.mean == pytest.approx(means[0] - means[1])
                    assert estimate.low <= estimate.mean <= estimate.high
        widths = {found["hit@1"].high - found["hit@1"].low for found in backbone.differences["sasrec"].values()}
        assert widths == {0.0}

    def test_a_positive_of_the_history_is_not_new(self) -> None:
        """Users whose test item repeats their first are left out."""
        split = tiny_split()
        split.test[::2] = [watched[0] for watched in split.train[::2]]
        held_out = HeldOut.of(split, Holdout.TEST, 0)
        expected = held_out.candidates.users % 2 == 1
        np.testing.assert_array_equal(held_out.groups["new"], expected)

    def test_recall_grows_with_the_cutoff(self, report: EvaluationReport) -> None:
        """All 30 items are among the first 100."""
        for groups in report.retrieval.values():
            metrics = groups["overall"].metrics
            assert metrics["recall@20"].mean <= metrics["recall@100"].mean == 1.0

    def test_the_report_says_it_on_paper_and_in_the_terminal(self, report: EvaluationReport, tmp_path: Path) -> None:
        """JSON that reads back, Markdown and table with every ranker and the very numbers, and a picture."""
        write_report(report, tmp_path)
        assert EvaluationReport.model_validate_json((tmp_path / JSON_FILE).read_text()) == report
        text = markdown(report)
        hit = report.rankers["allmrec_text"].groups["overall"].metrics["hit@1"]
        row = next(line for line in text.splitlines() if line.startswith("| A-LLMRec (text encoder) |"))
        assert row.split("|")[2].strip() == f"{hit.mean:.3f} ({hit.low:.3f} to {hit.high:.3f})"
        console = Console(width=80, record=True, quiet=False, file=(tmp_path / "out").open("w"))
        console.print(table(report))
        shown = console.export_text()
        assert all(ranker.title in shown and ranker.title in text for ranker in report.rankers.values())
        assert max(map(len, shown.splitlines())) <= 80
        assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
