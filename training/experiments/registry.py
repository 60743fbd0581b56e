"""All experiments by name. To add one, list it in `experiments`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from training.evaluation.comparison import Bootstrap
from training.experiments.genres import FIGURES, run_figure, write_figure
from training.experiments.report import summarise, write_table
from training.experiments.run import Ground, possible, run_table
from training.experiments.tables import TABLES, Table

TABLES_FOLDER = "tables"


@dataclass(frozen=True)
class Experiment:
    """One table or figure of the papers.

    Attributes:
        id: as the papers number it.
        title: for people.
        who: titles of those that take part.
        run: on a ground, with so many seeds; writes JSON, Markdown and a picture, and returns the path of the second.
        needs_target: whether it takes a second dataset.
    """

    id: str
    title: str
    who: Sequence[str]
    run: Callable[[Ground, int], Path]
    needs_target: bool = False


def experiments(only: Sequence[str] = ()) -> dict[str, Experiment]:
    """By id.

    Args:
        only: systems whose rows tables are cut to, those without any are left out; all if none are named.
    """
    if only:
        return {
            table.id: Experiment(table.id, table.title, _titles(table), partial(_table, table), table.needs_target)
            for whole in TABLES.values()
            if (table := replace(whole, rows=tuple(row for row in whole.rows if row.system in only))).rows
        }
    tables = [
        Experiment(table.id, table.title, _titles(table), partial(_table, table), table.needs_target)
        for table in TABLES.values()
    ]
    figures = [Experiment(figure, "Favourite genre", who, partial(_figure, figure)) for figure, who in FIGURES.items()]
    return {experiment.id: experiment for experiment in [*tables, *figures]}


def _titles(table: Table) -> list[str]:
    return [row.title for row in table.rows]


def _table(table: Table, ground: Ground, seeds: int) -> Path:
    table = possible(table, ground)
    found = run_table(table, ground, seeds)
    bootstrap = Bootstrap(resamples=ground.recipe_of(table.rows[0], 0).evaluation.resamples, seed=0)
    report = summarise(table, found, ground, bootstrap)
    return write_table(report, table, ground.home / TABLES_FOLDER)


def _figure(figure: str, ground: Ground, seeds: int) -> Path:
    return write_figure(run_figure(figure, ground, seeds), ground.home / TABLES_FOLDER)
