"""The evaluation: the same question to every ranker, and numbers that can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from models.backbones import represent_all
from models.bundle.index import ItemIndex
from models.composer import PromptComposer
from models.prompts.layout import Injection
from models.prompts.template import PromptConfig
from tests.tiny import sequel_split, tiny_contents, tiny_llm, tiny_split
from training.data.splits import Holdout
from training.evaluation import evaluate as evaluation
from training.evaluation.candidates import Candidates, draw_candidates
from training.evaluation.evaluate import (
    ALLMREC,
    ALLMREC_TEXT,
    LLM_VARIANTS,
    POPULARITY,
    RANDOM,
    STAGE1,
    TOKENS,
    DecodedVectors,
    EvaluationConfig,
    EvaluationReport,
    _groups,
    _retrieval_ranks,
    evaluate,
    summary,
)
from training.evaluation.llm_scores import rank_with_llm
from training.evaluation.metrics import rank_correlation
from training.evaluation.report import JSON_FILE, markdown, table, write_report


class TestRankWithLLM:
    def world(self):
        split, llm = tiny_split(), tiny_llm()
        contents = tiny_contents(split)
        everyone = draw_candidates(split, Holdout.TEST)
        candidates = Candidates(everyone.users[:6], everyone.items[:6])
        histories = [split.history(int(user), Holdout.TEST) for user in candidates.users]
        users = represent_all(contents.backbone, histories, contents.cf_vectors)
        composer = PromptComposer(contents, PromptConfig(), llm.tokenizer, llm.context_length)
        return llm, composer, users, histories, candidates

    def test_log_probabilities_sum_to_one_and_padding_has_none(self) -> None:
        """Over a user's real candidates; 30 items minus those met leave some users fewer than 19 negatives."""
        llm, composer, users, histories, candidates = self.world()
        candidates.items[0, 15:] = 0
        scores = rank_with_llm(llm, composer, users, histories, candidates)
        assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(6), abs=1e-6)
        assert np.isneginf(scores[0, 15:]).all()
        assert np.isfinite(scores[0, :15]).all()

    def test_batching_changes_nothing(self) -> None:
        """One prompt a batch or all in one: the same numbers."""
        llm, composer, users, histories, candidates = self.world()
        together = rank_with_llm(llm, composer, users, histories, candidates, batch_tokens=100_000)
        apart = rank_with_llm(llm, composer, users, histories, candidates, batch_tokens=1)
        assert together[candidates.mask] == pytest.approx(apart[candidates.mask], abs=1e-4)

    def test_progress_adds_up(self) -> None:
        """Every user is reported once."""
        llm, composer, users, histories, candidates = self.world()
        done: list[int] = []
        rank_with_llm(llm, composer, users, histories, candidates, batch_tokens=1500, report=done.append)
        assert sum(done) == 6

    def test_the_positive_stands_anywhere_in_the_prompt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Column 0 of the candidates is not the first title of the prompt, or position would leak the answer."""
        llm, composer, users, histories, candidates = self.world()
        places = []
        recommend = composer.recommend

        def spy(user, history, items, **options):
            places.append(items.index(int(candidates.items[len(places), 0])))
            return recommend(user, history, items, **options)

        monkeypatch.setattr(composer, "recommend", spy)
        rank_with_llm(llm, composer, users, histories, candidates, injection=Injection.NONE)
        assert len(set(places)) > 2


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
    assert _retrieval_ranks(index, users, histories, np.array([3, 3])).tolist() == [1, 3]


def tiny_report(
    checkpoint: Path | None = None,
    interface: bool = False,
    series_weight: float | None = None,
    unseen_sign: float = 1.0,
) -> EvaluationReport:
    split, llm = tiny_split(users=60) if series_weight is None else sequel_split(), tiny_llm(interface)
    contents = tiny_contents(split)
    if series_weight is not None:
        last = contents.projector.user.output
        last.weight.data.zero_()
        last.bias.data.copy_(llm.interface.series_axis * series_weight / llm.interface.coupling)
    own = contents.backbone.item_vectors.detach()
    signs = torch.where(torch.from_numpy(split.catalogue.trained), 1.0, unseen_sign)
    decoded = DecodedVectors(item=own * signs[:, None], text=torch.zeros_like(own))
    config = EvaluationConfig(users=25, resamples=200)
    return evaluate(split, contents, decoded, llm, PromptConfig(), config, "tiny", Console(quiet=True), checkpoint)


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return tiny_report()


def test_an_interrupted_evaluation_goes_on(
    report: EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third of four LLM variants, it ranks the last two only and reports what it would have."""
    calls = []

    def ranked(*arguments: Any, **options: Any) -> np.ndarray:
        calls.append(options["injection"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rank_with_llm(*arguments, **options)

    monkeypatch.setattr(evaluation, "rank_with_llm", ranked)
    with pytest.raises(KeyboardInterrupt):
        tiny_report(tmp_path / "checkpoint.pt")
    again = tiny_report(tmp_path / "checkpoint.pt")
    assert len(calls) == 3 + 2
    assert again == report


class TestTokens:
    """What the injected tokens say, where the LLM has an interface."""

    def test_without_an_interface_tokens_say_nothing(self, report: EvaluationReport) -> None:
        """No row, no correlation."""
        assert TOKENS not in report.rankers
        assert {ranker.token_correlation for ranker in report.rankers.values()} == {None}

    def test_every_variant_is_held_against_its_own_tokens(self) -> None:
        """The row agrees with itself, prompts without all tokens with nothing, and CF rankers have a figure."""
        rankers = tiny_report(interface=True).rankers
        assert rankers[TOKENS].token_correlation == pytest.approx(1.0)
        assert rankers["LLM-Only"].token_correlation is None
        assert rankers["A-LLMRec without user token"].token_correlation is None
        for name in ("SASRec", ALLMREC, ALLMREC_TEXT):
            assert -1 <= rankers[name].token_correlation <= 1

    def test_tokens_are_read_with_the_titles(self) -> None:
        """Where second parts come next, a weight of series finds most of them, and a negative one none."""
        liked, disliked = (
            tiny_report(interface=True, series_weight=weight).rankers[TOKENS].groups["overall"].metrics["hit@1"].mean
            for weight in (50.0, -50.0)
        )
        assert liked > 0.4
        assert disliked < 0.1

    def test_the_favourite_genre_is_on_paper(self) -> None:
        """Every way of guessing, with its interval."""
        found = tiny_report(interface=True)
        text = markdown(found)
        for name, share in found.genres.items():
            assert f"| {name} | {share.mean:.3f} ({share.low:.3f} to {share.high:.3f}) |" in text
        assert len(found.genres) == 5


class TestEvaluate:
    def test_every_ranker_answers_for_the_same_users(self, report: EvaluationReport) -> None:
        """25 of 60 users, all rankers of the paper's tables that this project has."""
        assert list(report.rankers)[:3] == [RANDOM, POPULARITY, "SASRec"]
        assert set(LLM_VARIANTS) < set(report.rankers)
        assert {ranker.groups["overall"].users for ranker in report.rankers.values()} == {25}
        assert report.users == 60
        assert report.all_users["SASRec"]["overall"].users == 60

    def test_stage_1_that_reproduces_the_backbone_ranks_like_it(self, report: EvaluationReport) -> None:
        """Decoded vectors equal to the backbone's: same ranks, correlation 1."""
        assert report.rankers[STAGE1].groups == report.rankers["SASRec"].groups
        assert report.rankers[STAGE1].rank_correlation == pytest.approx(1.0)

    def test_what_the_backbone_does_not_know_has_a_correlation_without_it(self) -> None:
        """Only unseen items' vectors are turned round: among known items the order is the backbone's."""
        stage1 = tiny_report(unseen_sign=-1.0).rankers[STAGE1]
        assert stage1.known_correlation == pytest.approx(1.0)
        assert stage1.rank_correlation < 0.99

    def test_correlations_are_on_paper_in_their_order(self) -> None:
        """With the backbone, among known items, with the tokens; a report of before has none among known items."""
        found = tiny_report(interface=True, unseen_sign=-1.0)
        stage1 = found.rankers[STAGE1]
        expected = (stage1.rank_correlation, stage1.known_correlation, stage1.token_correlation)
        assert len({round(value, 3) for value in expected}) == 3
        (row,) = [line for line in markdown(found).split("## ")[1].splitlines() if line.startswith(f"| {STAGE1} |")]
        assert row.endswith("".join(f"| {value:.3f} " for value in expected) + "|")
        old = found.model_dump()
        for ranker in old["rankers"].values():
            del ranker["known_correlation"]
        assert EvaluationReport.model_validate(old).rankers[STAGE1].known_correlation is None

    def test_a_ranker_without_an_opinion_ranks_last(self, report: EvaluationReport) -> None:
        """Ties count against the positive, so vectors of zeros are never a hit."""
        assert report.rankers["Stage 1 (text encoder)"].groups["overall"].metrics["hit@10"].mean == 0.0

    def test_groups_are_by_the_positive(self, report: EvaluationReport) -> None:
        """Unseen positives are cold ones, and warm and cold share no user."""
        groups = report.rankers[ALLMREC].groups
        assert 0 < groups["unseen"].users <= groups["cold"].users
        assert groups["warm"].users + groups["cold"].users <= 25
        assert groups["new"].users == 25

    def test_differences_are_those_of_hit_at_1(self, report: EvaluationReport) -> None:
        """To the backbone, in every group that has users; it differs from itself by nothing."""
        backbone = report.rankers["SASRec"]
        for ranker in report.rankers.values():
            assert set(ranker.differences) == {name for name, found in ranker.groups.items() if found.users}
            for name, difference in ranker.differences.items():
                hits = [found.groups[name].metrics["hit@1"].mean for found in (ranker, backbone)]
                assert difference.mean == pytest.approx(hits[0] - hits[1])
                assert difference.low <= difference.mean <= difference.high
        assert {found.high - found.low for found in backbone.differences.values()} == {0.0}

    def test_a_positive_of_the_history_is_not_new(self) -> None:
        """Users whose test item repeats their first are left out."""
        split = tiny_split()
        split.test[::2] = [watched[0] for watched in split.train[::2]]
        candidates = draw_candidates(split, Holdout.TEST, 0)
        expected = candidates.users % 2 == 1
        np.testing.assert_array_equal(_groups(split, candidates)["new"], expected)

    def test_recall_grows_with_the_cutoff(self, report: EvaluationReport) -> None:
        """All 30 items are among the first 100."""
        for groups in report.retrieval.values():
            assert groups["overall"]["recall@20"].mean <= groups["overall"]["recall@100"].mean == 1.0

    def test_the_report_says_it_on_paper_and_in_the_terminal(self, report: EvaluationReport, tmp_path: Path) -> None:
        """JSON that reads back, Markdown and table with every ranker and the very numbers, and a picture."""
        write_report(report, tmp_path)
        assert EvaluationReport.model_validate_json((tmp_path / JSON_FILE).read_text()) == report
        text = markdown(report)
        hit = report.rankers[ALLMREC_TEXT].groups["overall"].metrics["hit@1"]
        row = next(line for line in text.splitlines() if line.startswith(f"| {ALLMREC_TEXT} |"))
        assert row.split("|")[2].strip() == f"{hit.mean:.3f} ({hit.low:.3f} to {hit.high:.3f})"
        console = Console(width=200, record=True, quiet=False, file=(tmp_path / "out").open("w"))
        console.print(table(report))
        shown = console.export_text()
        assert all(name in shown and name in text for name in report.rankers)
        assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")

    def test_the_summary_is_plain_json_for_the_manifest(self, report: EvaluationReport) -> None:
        """Hit@1 and NDCG@10 by ranker and group, and the index's recall."""
        content = json.loads(json.dumps(summary(report)))
        assert content["ranked_users"] == 25
        expected = report.rankers[ALLMREC].groups["overall"].metrics["hit@1"].mean
        assert content["rankers"][ALLMREC]["overall"]["hit@1"] == pytest.approx(expected, abs=1e-4)
        assert content["retrieval"]["overall"]["recall@100"] == 1.0
