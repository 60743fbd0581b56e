"""A table's figures, from saved answers, as JSON, Markdown and a picture.

Axes: S seeds, U users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from models.catalogue import PADDING_ITEM
from models.config import Config
from models.errors import DataError
from training.evaluation.comparison import Bootstrap
from training.evaluation.measures import UNIFORM
from training.evaluation.metrics import METRICS, Estimate, candidates_in_words, chance_metrics
from training.evaluation.report import interval, markdown_head, markdown_row
from training.evaluation.seeds import Resampling
from training.evaluation.tables import ScoreTables
from training.experiments.run import Answers, Ground
from training.experiments.scenarios import FEWEST_ASKED
from training.experiments.tables import TABLES, Column, Table
from training.runs.cost import Cost
from training.runs.stage_run import environment

REFERENCE = "A-LLMRec"
MINUTE = 60


class Cell(Config):
    """One figure.

    Attributes:
        users: whom all rows of the table were asked about; of fewer than `FEWEST_ASKED` there is no figure.
        estimate: over these and all seeds, so that rows can be compared.
        less_reference: this row less the reference, user by user.
        all_users: whom this row was asked about.
        of_all: over all of them.
        published: the paper's figure by dataset.
    """

    users: int
    estimate: Estimate | None = None
    less_reference: Estimate | None = None
    all_users: int = 0
    of_all: Estimate | None = None
    published: dict[str, float] = Field(default_factory=dict)


class RowReport(Config):
    """One system.

    Attributes:
        system: its id.
        settings: of the recipe, that make the row what it is.
        cells: by column title.
        ranker: id under which its scores are kept.
        answers: by scenario id the folders of its scores, one a seed, relative to the experiments' folder.
        training: what it cost to fit, all stages that it needs, the mean over seeds.
        milliseconds: to rank one user's candidates.
        processor_milliseconds: the same of the processor's time, whatever else it did beside.
        memory: MiB at most while ranking.
        published_costs: the paper's, by what they are of and dataset.
    """

    system: str
    settings: tuple[str, ...] = ()
    cells: dict[str, Cell]
    ranker: str
    answers: dict[str, list[str]]
    training: Cost
    milliseconds: float
    processor_milliseconds: float = 0.0
    memory: float
    published_costs: dict[str, dict[str, float]] = Field(default_factory=dict)


class TableReport(Config):
    """A table on one dataset.

    Attributes:
        table: its id.
        dataset: its name.
        target: of the dataset that was asked about, if it is another one.
        seeds: how many.
        recipe: the recipe's name.
        settings: that were changed in it.
        bootstrap: how intervals were found.
        chance: Hit@1 of a random order.
        reference: title of the row that others are compared with.
        rows: by title.
        environment: versions and machine.
    """

    table: str
    dataset: str
    target: str | None = None
    seeds: int
    recipe: str
    settings: tuple[str, ...] = ()
    bootstrap: Bootstrap
    chance: float
    reference: str
    rows: dict[str, RowReport]
    environment: dict[str, Any] = Field(default_factory=dict)


def summarise(
    table: Table, found: Mapping[str, Mapping[str, Sequence[Answers]]], ground: Ground, bootstrap: Bootstrap
) -> TableReport:
    """The report of a table.

    Args:
        table: which.
        found: answers by row title and scenario id, one a seed.
        ground: what it was run on.
        bootstrap: how intervals are found.
    """
    rows, home = {}, ground.home
    for row in table.rows:
        said = found[row.title]
        first = next(iter(said.values()))
        asking, asked = sum((answers.asking for answers in first), Cost()), sum(answers.users for answers in first)
        rows[row.title] = RowReport(
            system=row.system,
            settings=row.settings,
            cells={},
            ranker=first[0].ranker,
            answers={name: [_relative(a.directory, home) for a in by_seed] for name, by_seed in said.items()},
            training=_mean([answers.training for answers in first]),
            milliseconds=1000 * asking.seconds / asked,
            processor_milliseconds=1000 * asking.processor / asked,
            memory=asking.memory,
            published_costs=published_costs(table, row.title),
        )
    reference = REFERENCE if REFERENCE in rows else next(iter(rows))
    report = TableReport(
        table=table.id,
        dataset=ground.name,
        target=ground.target_name if table.needs_target else None,
        recipe=ground.recipe,
        settings=tuple(ground.settings),
        seeds=len(next(iter(next(iter(found.values())).values()))),
        bootstrap=bootstrap,
        chance=0.0,
        reference=reference,
        rows=rows,
        environment=environment(),
    )
    return recompute(report, table, home)


def recompute(report: TableReport, table: Table, home: Path) -> TableReport:
    """The same report with every figure worked out again from the scores that are kept in `home`.

    Raises:
        DataError: seeds were asked about different users.
    """
    chance, rows = 0.0, {}
    by_title = {row.title: row for row in table.rows}
    ranks = {title: _ranks(row, home) for title, row in report.rows.items()}
    asked = _asked_by_all(ranks)
    for title, row in report.rows.items():
        cells = {}
        for column in table.columns:
            if column.scenario.id not in ranks[title]:
                continue
            tables, ranks_S_U = ranks[title][column.scenario.id]
            others_S_U = ranks[report.reference][column.scenario.id][1]
            shared = asked[column.scenario.id] & tables.groups[column.group]
            cell = _cell(column, tables, ranks_S_U, others_S_U, shared, report.bootstrap)
            if by_title[title].metrics and column.metric not in by_title[title].metrics:
                cell = Cell(users=cell.users, all_users=cell.all_users)
            published = dict(table.published.get(title, {}).get(column.title, {}))
            cells[column.title] = cell.model_copy(
                update={"published": published, **({"less_reference": None} if title == report.reference else {})}
            )
            chance = chance_metrics((tables.facts["candidates"] != PADDING_ITEM).sum(axis=1))["hit@1"]
        rows[title] = row.model_copy(update={"cells": cells})
    return report.model_copy(update={"rows": rows, "chance": chance})


def _ranks(row: RowReport, home: Path) -> dict[str, tuple[ScoreTables, np.ndarray]]:
    """By scenario id what its answers are about, and the positives' ranks (S, U), NaN for users not asked about."""
    found = {}
    for scenario, directories in row.answers.items():
        tables = [ScoreTables.load(UNIFORM, home / directory) for directory in directories]
        if any(not np.array_equal(tables[0].facts["users"], other.facts["users"]) for other in tables):
            raise DataError(f"scenario {scenario}: the seeds were asked about different users; run the table again")
        found[scenario] = tables[0], np.stack([table.ranks(row.ranker) for table in tables])
    return found


def _asked_by_all(ranks: Mapping[str, Mapping[str, tuple[ScoreTables, np.ndarray]]]) -> dict[str, np.ndarray]:
    """By scenario id (U,) bool: the users that every row was asked about."""
    found: dict[str, np.ndarray] = {}
    for row in ranks.values():
        for scenario, (_, ranks_S_U) in row.items():
            asked_U = ~np.isnan(ranks_S_U).any(axis=0)
            found[scenario] = found.get(scenario, asked_U) & asked_U
    return found


def _cell(
    column: Column,
    tables: ScoreTables,
    ranks_S_U: np.ndarray,
    others_S_U: np.ndarray,
    shared_U: np.ndarray,
    bootstrap: Bootstrap,
) -> Cell:
    metric = METRICS[column.metric]
    asked_U = tables.groups[column.group] & ~np.isnan(ranks_S_U).any(axis=0)
    values_S_U, others = (metric(np.nan_to_num(ranks, nan=np.inf)) for ranks in (ranks_S_U, others_S_U))
    resampling = Resampling.of(len(ranks_S_U), {"asked": asked_U, "shared": shared_U}, bootstrap)
    if asked_U.sum() < FEWEST_ASKED:
        return Cell(users=int(shared_U.sum()), all_users=int(asked_U.sum()))
    of_all = resampling.estimate(values_S_U, "asked")
    if shared_U.sum() < FEWEST_ASKED:
        return Cell(users=int(shared_U.sum()), all_users=int(asked_U.sum()), of_all=of_all)
    return Cell(
        users=int(shared_U.sum()),
        estimate=of_all if np.array_equal(asked_U, shared_U) else resampling.estimate(values_S_U, "shared"),
        less_reference=resampling.difference(values_S_U, others, "shared"),
        all_users=int(asked_U.sum()),
        of_all=of_all,
    )


def published_costs(table: Table, row: str) -> dict[str, dict[str, float]]:
    """What the paper says of a row that stands in no column, by what it is of and dataset."""
    columns = {column.title for column in table.columns}
    return {name: dict(figures) for name, figures in table.published.get(row, {}).items() if name not in columns}


def write_table(report: TableReport, table: Table, directory: Path) -> Path:
    """Write `<table>.json`, `.md` and `.png` into `directory`, by names of their own for some rows of a table.

    Returns:
        The path of the second.
    """
    directory.mkdir(parents=True, exist_ok=True)
    whole = TABLES.get(table.id)
    some = dict.fromkeys(row.system for row in table.rows) if whole and len(table.rows) < len(whole.rows) else ()
    name = "-".join([table.id, *some])
    (directory / f"{name}.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    path = directory / f"{name}.md"
    path.write_text(markdown(report, table), encoding="utf-8")
    plot(report, table, directory / f"{name}.png")
    return path


def markdown(report: TableReport, table: Table) -> str:
    """The table with intervals, the paper's figures, and costs."""
    name = f"{report.dataset} to {report.target}" if report.target else report.dataset
    settings = " ".join(report.settings)
    first = table.columns[0]
    lines = [
        f"## {table.id.replace('table', 'Table ')}: {table.title} ({name})",
        "",
        f"{report.seeds} seed{'s' * (report.seeds > 1)}, recipe `{report.recipe}`{f', {settings}' * bool(settings)}."
        f" {candidates_in_words(report.chance)} candidates, chance has Hit@1 {report.chance:.3f}; means and 95 %"
        " intervals over seeds and the users that all systems were asked about.",
        "",
    ]
    any_row = next(iter(report.rows.values()))
    titles = [column.title for column in table.columns]
    heads = [f"{title} ({any_row.cells[title].users})" for title in titles]
    more = any(row.cells[first.title].all_users > row.cells[first.title].users for row in report.rows.values())
    published = _published(report, titles)
    costs = ["training, min", "of the processor, min", "memory of training, MiB"]
    costs += ["ms a user", "of the processor, ms a user", "memory of ranking, MiB"]
    beside = [f"{first.title} less {report.reference}'s", *[f"{first.title} of all asked"] * more]
    papers = [f"paper, {dataset}: {title}" for dataset, title in published]
    priced = dict.fromkeys(
        (dataset, name)
        for row in report.rows.values()
        for name, figures in row.published_costs.items()
        for dataset in figures
    )
    papers += [f"paper, {dataset}: {name}" for dataset, name in priced]
    lines += markdown_head("System", [*heads, *beside, *papers, *costs])
    for title, row in report.rows.items():
        cell = row.cells[first.title]
        cells = [_shown(row.cells[name].estimate) for name in titles] + [_shown(cell.less_reference)]
        cells += [f"{_shown(cell.of_all)}, {cell.all_users}"] * more
        figures = [row.cells[name].published.get(dataset) for dataset, name in published]
        cells += ["-" if figure is None else f"{figure:.4f}" for figure in figures]
        spent = [row.published_costs.get(name, {}).get(dataset) for dataset, name in priced]
        cells += ["-" if figure is None else f"{figure:g}" for figure in spent]
        training = row.training
        cells += [f"{seconds / MINUTE:.1f}" for seconds in (training.seconds, training.processor)]
        cells += [f"{training.memory:.0f}", f"{row.milliseconds:.1f}", f"{row.processor_milliseconds:.1f}"]
        cells.append(f"{row.memory:.0f}")
        lines.append(markdown_row(title, cells))
    return "\n".join(lines) + "\n"


def _published(report: TableReport, titles: Sequence[str]) -> list[tuple[str, str]]:
    """Datasets and columns that the paper has figures for."""
    cells = [(name, row.cells[name]) for row in report.rows.values() for name in titles]
    datasets = dict.fromkeys(dataset for _, cell in cells for dataset in cell.published)
    return [
        (dataset, title)
        for dataset in datasets
        for title in titles
        if any(dataset in cell.published for name, cell in cells if name == title)
    ]


def plot(report: TableReport, table: Table, path: Path) -> None:
    """Every column's figures as bars with their intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    titles = list(report.rows)
    figure = Figure(figsize=(3 + 3 * len(table.columns), 1 + 0.35 * len(titles)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(1, len(table.columns), squeeze=False)[0], table.columns, strict=True):
        shown = [(place, row.cells[column.title].estimate) for place, row in enumerate(report.rows.values())]
        bars = [(place, estimate) for place, estimate in shown if estimate is not None]
        means = [estimate.mean for _, estimate in bars]
        errors = [
            [max(0.0, estimate.mean - estimate.low) for _, estimate in bars],
            [max(0.0, estimate.high - estimate.mean) for _, estimate in bars],
        ]
        axes.barh([place for place, _ in bars], means, xerr=errors, color="tab:blue", ecolor="black")
        axes.axvline(report.chance, color="grey", linestyle=":")
        axes.set(title=column.title, yticks=range(len(titles)), yticklabels=titles)
        axes.invert_yaxis()
    figure.savefig(path, dpi=120)


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else interval(estimate)


def _mean(costs: Sequence[Cost]) -> Cost:
    total = sum(costs, Cost())
    each = len(costs)
    return total.model_copy(update={"seconds": total.seconds / each, "processor": total.processor / each})


def _relative(directory: Path, home: Path) -> str:
    return directory.relative_to(home).as_posix()
