"""The evaluation: every ranker on the same users and candidates (A-LLMRec section 5), none known by name.

Axes: E users, C candidates of which the first is the positive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field as ConfigField

from models.config import Config
from models.rankers.base import Ranker
from models.recommending.serving import Serving
from models.threads import one_thread
from training.evaluation.comparison import (
    Bootstrap,
    CheckReport,
    Entry,
    ProtocolReport,
    RankerReport,
    check,
    compare,
    group_reports,
    strongest,
    with_orders,
)
from training.evaluation.corrected import CorrectedRanker
from training.evaluation.held_out import HeldOut
from training.evaluation.measures import (
    ALL_USERS,
    CHECKS,
    PERMUTED_TITLES,
    POPULAR,
    PROTOCOLS,
    RETRIEVAL,
    SHUFFLED_HISTORIES,
    UNIFORM,
    VALIDATION,
)
from training.evaluation.metrics import Estimate, RankingReport
from training.evaluation.protocols import FullCatalogue, Protocol, Sampled, Served, ask_all, popular
from training.evaluation.retrieval import Retriever
from training.evaluation.tables import ScoreTables, facts_of
from training.runs.context import RunContext


class EvaluationConfig(Config):
    """The stage `evaluate`.

    Attributes:
        users: at most this many users are ranked for, the same by all rankers.
        llm_users: of these, so many are ranked for with the LLM under the protocols beside the first, and rankers are
            compared there on these alone.
        check_users: and so many in the checks of what rankers use.
        resamples: of the bootstrap.
        seed: of the candidates and the bootstrap.
    """

    users: int = ConfigField(2000, gt=0)
    llm_users: int = ConfigField(500, gt=0)
    check_users: int = ConfigField(300, gt=0)
    resamples: int = ConfigField(2000, gt=0)
    seed: int = 0

    @property
    def bootstrap(self) -> Bootstrap:
        """How intervals are found."""
        return Bootstrap(resamples=self.resamples, seed=self.seed)


class GenreShares(Config):
    """How good ways of guessing genres are, by their names.

    Attributes:
        genres: how often each names the user's favourite genre.
        next_genres: how often it names one of the item that the user takes next.
    """

    genres: dict[str, Estimate] = ConfigField(default_factory=dict)
    next_genres: dict[str, Estimate] = ConfigField(default_factory=dict)


class Head(GenreShares):
    """What a report is about; with the saved tables all that its figures follow from.

    Attributes:
        dataset: its name.
        llm: its name.
        by_time: whether the data was split at one moment for all.
        reference: id of the ranker that all are compared with.
        default_ranker: id of the ranker that is served unless told otherwise.
        items: N.
        users: users who have a test item.
        seed: of the candidates.
        bootstrap: how intervals were found.
        entries: who takes part, by id.
        retrievers: titles by id.
    """

    dataset: str = ""
    llm: str = ""
    by_time: bool = False
    reference: str
    default_ranker: str | None = None
    items: int
    users: int
    seed: int
    bootstrap: Bootstrap
    entries: dict[str, Entry]
    retrievers: dict[str, str] = ConfigField(default_factory=dict)


class EvaluationReport(Head):
    """`report.json`.

    Attributes:
        ranked_users: how many of them the rankers were compared on.
        opponent: id of the strongest ranker that needs no LLM, the default one left out, by `validation`.
        validation: NDCG@10 on validation items of the rankers that need no LLM.
        chance: what a random order of 1 + 19 candidates has.
        rankers: by id, under the protocol `uniform`.
        protocols: the others by id.
        checks: what rankers lose without titles and without order, by id.
        all_users: the rankers that need no LLM on all users, by id and group.
        retrieval: share of positives among the first 20 and 100 of all items, by retriever and group.
    """

    ranked_users: int
    opponent: str | None = None
    validation: dict[str, float] = ConfigField(default_factory=dict)
    chance: dict[str, float]
    rankers: dict[str, RankerReport]
    protocols: dict[str, ProtocolReport] = ConfigField(default_factory=dict)
    checks: dict[str, CheckReport] = ConfigField(default_factory=dict)
    all_users: dict[str, dict[str, RankingReport]]
    retrieval: dict[str, dict[str, RankingReport]]


@dataclass(frozen=True)
class Field:
    """What is compared.

    Attributes:
        rankers: their ids are unique.
        reference: id of the ranker that all are compared with.
        retrievers: ways to search the whole catalogue.
        default: id of the ranker that is served unless told otherwise.
        serving: how the bundle is served; without it nothing is evaluated as served.
        corrected: rankers that are told the odds where negatives are drawn by popularity, and take part there alone.
        permuted: makes the rankers that read item texts, by their ids, with the texts permuted among the items.
    """

    rankers: Sequence[Ranker]
    reference: str
    retrievers: Sequence[Retriever] = ()
    default: str | None = None
    serving: Serving | None = None
    corrected: Sequence[CorrectedRanker] = ()
    permuted: Callable[[], Sequence[Ranker]] | None = None

    def __post_init__(self) -> None:
        ids = [ranker.id for ranker in self.all]
        if len({*ids}) != len(ids):
            raise ValueError(f"rankers with the same id: {sorted(ids)}")

    @property
    def all(self) -> list[Ranker]:
        """Whoever takes part anywhere."""
        return [*self.rankers, *self.corrected]


@dataclass(frozen=True)
class Occasion:
    """Whom rankers are asked about.

    Attributes:
        everyone: all users who have a test item. The rankers are compared on `EvaluationConfig.users` of them.
        validation: users with validation items, on which the strongest opponent is chosen; None: the reference is.
    """

    everyone: HeldOut
    validation: HeldOut | None = None


def evaluate(
    occasion: Occasion, field: AbstractAsyncContextManager[Field], config: EvaluationConfig, run: RunContext
) -> EvaluationReport:
    """Evaluate on held-out items.

    Args:
        occasion: whom rankers are asked about.
        field: what is compared, entered for as long as it takes.
        config: of the stage.
        run: gets the tables of all that was said, from which an interrupted evaluation goes on, and from which
            `recompute` finds every figure again.
    """

    async def work() -> EvaluationReport:
        async with field as compared:
            tables = await ask_field(occasion, compared, config, run)
            head = Head(
                reference=compared.reference,
                default_ranker=compared.default,
                items=len(occasion.everyone.catalogue),
                users=len(occasion.everyone),
                seed=config.seed,
                bootstrap=config.bootstrap,
                entries={ranker.id: Entry.of(ranker) for ranker in compared.all},
                retrievers={retriever.id: retriever.title for retriever in compared.retrievers},
            )
            return summarise(head, tables)

    with one_thread():
        return asyncio.run(work())


async def ask_field(
    occasion: Occasion, field: Field, config: EvaluationConfig, run: RunContext
) -> dict[str, ScoreTables]:
    """All that is asked of all, by the id of the measure."""
    everyone, sample = occasion.everyone, occasion.everyone.at_most(config.users)
    rankers = field.rankers
    fast = [ranker for ranker in rankers if not ranker.needs_llm]
    tables = [await ask_all(Sampled(UNIFORM, sample), rankers, len(sample), run)]
    if occasion.validation is not None:
        tables.append(await ask_all(Sampled(VALIDATION, occasion.validation), fast, 0, run))
    protocols: list[Protocol] = [popular(sample, config.seed, field.serving), FullCatalogue(sample)]
    if field.serving is not None:
        protocols.append(Served(sample, field.serving))
    for protocol in (protocol for protocol in protocols if len(protocol.held_out)):
        asked = field.all if protocol.measure is POPULAR else rankers
        tables.append(await ask_all(protocol, asked, config.llm_users, run))
    shuffled = Sampled(SHUFFLED_HISTORIES, sample.shuffled(config.seed))
    tables.append(await ask_all(shuffled, rankers, config.check_users, run))
    if field.permuted is not None:
        tables.append(await ask_all(Sampled(PERMUTED_TITLES, sample), field.permuted(), config.check_users, run))
    tables.append(await ask_all(Sampled(ALL_USERS, everyone), fast, 0, run))
    tables.append(search_all(field.retrievers, everyone, run))
    return {table.measure.id: table for table in tables}


def search_all(retrievers: Sequence[Retriever], held_out: HeldOut, run: RunContext) -> ScoreTables:
    """Where retrievers find the positives among all items, kept like what rankers say."""
    facts = facts_of(held_out.among(held_out.positives[:, None]), 0, run.fingerprint)
    tables = ScoreTables.open(RETRIEVAL, run.directory, facts)
    for retriever in retrievers:
        if retriever.id not in tables:
            tables.add(retriever.id, retriever.ranks(held_out))
    return tables


def summarise(head: Head, tables: Mapping[str, ScoreTables]) -> EvaluationReport:
    """The report: a function of `head` and what rankers said."""
    entries, bootstrap, uniform = head.entries, head.bootstrap, tables[UNIFORM.id]
    opponent: str | None = None
    validation: dict[str, float] = {}
    if VALIDATION.id in tables:
        opponent, validation = strongest(tables[VALIDATION.id], entries, [head.default_ranker or ""])
    others = [head.reference, *([opponent] if opponent else [])]
    first = compare(uniform, entries, others, bootstrap)
    beside = [name for name in PROTOCOLS if name != UNIFORM.id and name in tables and tables[name].ranker_ids]
    return EvaluationReport(
        **{name: getattr(head, name) for name in Head.model_fields},
        ranked_users=uniform.users,
        opponent=opponent,
        validation=validation,
        chance=first.chance,
        rankers=with_orders(first, uniform, entries, head.reference),
        protocols={name: compare(tables[name], entries, others, bootstrap) for name in beside},
        checks={name: check(tables[name], uniform, bootstrap) for name in CHECKS if name in tables},
        all_users=_groups(tables.get(ALL_USERS.id), bootstrap),
        retrieval=_groups(tables.get(RETRIEVAL.id), bootstrap),
    )


def recompute(report: EvaluationReport, directory: Path) -> EvaluationReport:
    """The same report, worked out again from the tables in `directory`; from `report` come names and settings only."""
    measures = [*PROTOCOLS.values(), *CHECKS.values(), VALIDATION, ALL_USERS, RETRIEVAL]
    kept = [ScoreTables.load(measure, directory) for measure in measures if (directory / measure.file).is_file()]
    head = Head(**{name: getattr(report, name) for name in Head.model_fields})
    return summarise(head, {tables.measure.id: tables for tables in kept})


def _groups(tables: ScoreTables | None, bootstrap: Bootstrap) -> dict[str, dict[str, RankingReport]]:
    if tables is None:
        return {}
    return {name: group_reports(tables.ranks(name), tables, bootstrap) for name in tables.ranker_ids}
