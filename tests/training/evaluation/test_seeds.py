"""Several seeds: means and intervals over users and seeds, worked out otherwise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from models.errors import DataError
from models.rankers.base import Ranker
from tests.tiny import tiny_split
from training.data.splits import Holdout
from training.evaluation.comparison import Bootstrap, Entry
from training.evaluation.evaluate import EvaluationReport, Head, summarise
from training.evaluation.held_out import HeldOut
from training.evaluation.measures import FULL, UNIFORM, VALIDATION
from training.evaluation.report import JSON_FILE
from training.evaluation.results import write_results
from training.evaluation.seeds import Resampling, SeedReport, aggregate
from training.evaluation.tables import ScoreTables, facts_of

BOOTSTRAP = Bootstrap(resamples=400, seed=0)
ENTRIES = {
    "weak": Entry(title="Weak"),
    "strong": Entry(title="Strong"),
    "llm": Entry(title="LLM", needs_llm=True),
}


def evaluation(directory: Path, seed: int, users: int = 40) -> EvaluationReport:
    """Of three rankers: the LLM knows the positive, but was asked about ten users; the others guess."""
    rng = np.random.default_rng(seed)
    held_out = HeldOut.of(tiny_split(users), Holdout.TEST, seed)
    tables = {}
    for measure in (UNIFORM, FULL, VALIDATION):
        directory.mkdir(exist_ok=True)
        table = ScoreTables.open(measure, directory, facts_of(held_out, 10))
        for strength, name in enumerate(["weak", "strong"]):
            scores = rng.random(held_out.candidates.items.shape) + strength * np.eye(20)[0] / 2
            table.add(name, 1 + (scores[:, 1:] >= scores[:, :1]).sum(axis=1) if measure.keeps_ranks else scores)
        if measure is UNIFORM:
            table.add("llm", np.tile(np.eye(20)[0], (10, 1)))
        tables[measure.id] = table
    head = Head(
        dataset="shop",
        reference="weak",
        default_ranker="llm",
        items=30,
        users=40,
        seed=seed,
        bootstrap=BOOTSTRAP,
        entries=ENTRIES,
    )
    report = summarise(head, tables)
    (directory / JSON_FILE).write_text(report.model_dump_json())
    return report


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[EvaluationReport], list[Path]]:
    home = tmp_path_factory.mktemp("seeds")
    directories = [home / str(seed) for seed in range(3)]
    return [evaluation(directory, seed) for seed, directory in enumerate(directories)], directories


@pytest.fixture(scope="module")
def found(seeds: tuple[list[EvaluationReport], list[Path]]) -> SeedReport:
    return aggregate(seeds[1], BOOTSTRAP)


def test_means_are_those_of_the_seeds(seeds: tuple[list[EvaluationReport], list[Path]], found: SeedReport) -> None:
    """Every seed has the same users, so the mean over all is the mean of their means; each is there too."""
    means = [report.rankers["strong"].groups["overall"].metrics["hit@1"].mean for report in seeds[0]]
    ranker = found.protocols["uniform"].rankers["strong"]
    assert ranker.by_seed["hit@1"] == pytest.approx(means)
    assert ranker.groups["overall"]["hit@1"].mean == pytest.approx(np.mean(means))
    assert ranker.groups["overall"]["hit@1"].low <= np.mean(means) <= ranker.groups["overall"]["hit@1"].high


def test_the_lead_is_of_the_users_that_both_were_asked_about(found: SeedReport) -> None:
    """The LLM is right for its ten users; what the others have of these is what it leads by, less than one."""
    uniform = found.protocols["uniform"].rankers
    assert uniform["llm"].users == 10
    assert uniform["llm"].groups["overall"]["hit@1"].mean == 1.0
    assert uniform["llm"].lead == {}
    assert 0 < uniform["strong"].lead["overall"]["hit@1"].mean < uniform["weak"].lead["overall"]["hit@1"].mean


def test_all_are_compared_on_the_users_that_all_were_asked_about(
    seeds: tuple[list[EvaluationReport], list[Path]], found: SeedReport, tmp_path: Path
) -> None:
    """Ten of forty: by loops over what was said. The figure of all forty stands beside, on paper too for protocols
    beside the first."""
    uniform = found.protocols["uniform"]
    hits = []
    for directory in seeds[1]:
        with np.load(directory / UNIFORM.file) as saved:
            hits.append(saved["strong"][:, 0] > saved["strong"][:, 1:].max(axis=1))
            told = saved["fewer"]
    strong = uniform.rankers["strong"]
    assert (uniform.shared_users, strong.users, len(told)) == (10, 40, 10)
    assert strong.groups["overall"]["hit@1"].mean == pytest.approx(np.mean([of_seed[told] for of_seed in hits]))
    assert strong.of_all["overall"]["hit@1"].mean == pytest.approx(np.mean(hits))
    assert uniform.rankers["llm"].of_all == {}
    popular = found.model_copy(update={"protocols": {**found.protocols, "popular": uniform}})
    write_results({"shop": popular}, tmp_path)
    (part,) = [part for part in (tmp_path / "results.md").read_text().split("### ")[1:] if "all asked" in part]
    head, row = (next(line for line in part.splitlines() if line.startswith(f"| {name}")) for name in ("R", "Strong"))
    assert "Hit@1 (10)" in head
    assert row.endswith(", 40 |")


def test_the_opponent_is_the_best_on_validation_over_all_seeds(found: SeedReport) -> None:
    assert found.opponent == "strong"


def test_intervals_are_over_users_and_seeds() -> None:
    """Seeds of .4 and .6 each for all users alike: resampled seeds have .4, .5 or .6, whatever the users. Users alone:
    1.96 standard errors, as ever."""
    groups = {"overall": np.ones(400, dtype=bool)}
    resampling = Resampling.of(2, groups, Bootstrap(resamples=2000, seed=0))
    apart = resampling.estimate(np.array([[0.4] * 400, [0.6] * 400]), "overall")
    assert (apart.low, apart.mean, apart.high) == pytest.approx((0.4, 0.5, 0.6))
    values = np.tile(np.arange(400) % 4 == 0, (2, 1)).astype(float)
    alike = resampling.estimate(values, "overall")
    assert alike.high - alike.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 * 0.75 / 400), rel=0.1)


def test_seeds_of_different_users_are_refused(tmp_path: Path) -> None:
    """They have no user in common to be resampled."""
    evaluation(tmp_path / "a", 0)
    evaluation(tmp_path / "b", 1, users=30)
    with pytest.raises(DataError, match="different users"):
        aggregate([tmp_path / "a", tmp_path / "b"], BOOTSTRAP)


def test_results_lead_with_the_strongest(found: SeedReport, tmp_path: Path) -> None:
    """The served ranker is bold, who it leads follows in their order; the JSON reads back."""
    write_results({"mall": found}, tmp_path)
    assert SeedReport.model_validate_json((tmp_path / "results-mall.json").read_text()) == found
    text = (tmp_path / "results.md").read_text()
    first, second = text.index("**LLM**"), text.index("| Strong |")
    assert first < second < text.index("| Weak |")
    assert "Strongest without an LLM on validation: Strong." in text
    assert "### The whole catalogue" in text


def test_rankers_are_told_by_what_they_need() -> None:
    """An entry is what a ranker says of itself."""

    class Mine(Ranker):
        id, title, needs_llm = "mine", "Mine", True

        async def score(self, _, candidates):  # type: ignore[no-untyped-def]
            return candidates

    assert Entry.of(Mine()) == Entry(title="Mine", needs_llm=True)
