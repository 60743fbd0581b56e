"""The table of encoders: Recall and NDCG over the whole catalogue, and what each is ahead of the first.

Axes: S seeds, E users.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.config import Config
from training.data.splits import Holdout
from training.evaluation.comparison import Bootstrap
from training.evaluation.metrics import RESAMPLES, Estimate, hit_at, ndcg_at
from training.evaluation.report import markdown_head, markdown_row
from training.evaluation.seeds import Resampling

MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recall@10": lambda ranks: hit_at(ranks, 10),
    "recall@20": lambda ranks: hit_at(ranks, 20),
    "ndcg@10": lambda ranks: ndcg_at(ranks, 10),
    "ndcg@20": lambda ranks: ndcg_at(ranks, 20),
}
DECISIVE = "ndcg@10"
JSON_FILE, MARKDOWN_FILE = "encoders.json", "encoders.md"


class Row(Config):
    """One encoder, used in one way, on one catalogue.

    Attributes:
        dataset: the catalogue.
        use: of the vectors.
        encoder: its label.
        in_domain: whether it was trained on this catalogue; None where nothing says so.
        users: who are tested.
        seeds: trainings that figures are means of; intervals are over users and seeds.
        validation: NDCG@10 on validation items, which is what one chooses by.
        metrics: on test items, by name.
        cold: NDCG@10 on test items that are cold; None without any.
        lead: on the first encoder, by name; empty for the first.
    """

    dataset: str
    use: str
    encoder: str
    in_domain: bool | None
    users: int
    seeds: int
    validation: float
    metrics: dict[str, Estimate]
    cold: Estimate | None
    lead: dict[str, Estimate]


def make_row(
    ranks: Mapping[Holdout, np.ndarray],
    first: Mapping[Holdout, np.ndarray] | None,
    cold_E: np.ndarray,
    names: Mapping[str, Any],
) -> Row:
    """Summarise ranks.

    Args:
        ranks: (S, E) of an encoder, by what is held out.
        first: of the encoder that it is compared with.
        cold_E: whose test items are cold.
        names: `dataset`, `use`, `encoder` and `in_domain`.
    """
    test = ranks[Holdout.TEST]
    bootstrap = Bootstrap(resamples=RESAMPLES, seed=0)
    resampling = Resampling.of(len(test), {"all": np.ones_like(cold_E), "cold": cold_E}, bootstrap)
    values = {name: measure(test) for name, measure in MEASURES.items()}
    lead = {}
    if first is not None:
        others = {name: measure(first[Holdout.TEST]) for name, measure in MEASURES.items()}
        lead = {name: resampling.difference(values[name], others[name], "all") for name in MEASURES}
    return Row(
        **names,
        users=test.shape[1],
        seeds=len(test),
        validation=float(MEASURES[DECISIVE](ranks[Holdout.VALIDATION]).mean()),
        metrics={name: resampling.estimate(values_S_E, "all") for name, values_S_E in values.items()},
        cold=resampling.estimate(values[DECISIVE], "cold") if cold_E.any() else None,
        lead=lead,
    )


def write_report(rows: Sequence[Row], settings: Mapping[str, Any], directory: Path) -> None:
    """Write `encoders.json` and `encoders.md`."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {"settings": dict(settings), "rows": [row.model_dump(mode="json") for row in rows]}
    (directory / JSON_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (directory / MARKDOWN_FILE).write_text(markdown(rows), encoding="utf-8")


def markdown(rows: Sequence[Row]) -> str:
    """A table for every catalogue and use; the best on validation is marked with a star."""
    lines = []
    for dataset, use in dict.fromkeys((row.dataset, row.use) for row in rows):
        part = [row for row in rows if (row.dataset, row.use) == (dataset, use)]
        best = max(part, key=lambda row: row.validation)
        first = part[0]
        heads = ["trained on it", f"validation {DECISIVE}", *MEASURES, f"cold {DECISIVE}"]
        heads.append(f"{DECISIVE} less {first.encoder}'s")
        lines += [
            f"**{dataset}, {use}**, {first.users:,} users{f', {first.seeds} seeds' if first.seeds > 1 else ''}\n",
            *markdown_head("encoder", heads),
        ]
        for row in part:
            known = {True: "yes", False: "no", None: ""}[row.in_domain]
            cells = [known, _short(row.validation)]
            cells += [_short(estimate.mean) for estimate in row.metrics.values()]
            cells += [_short(row.cold.mean) if row.cold else "", _interval(row.lead[DECISIVE]) if row.lead else ""]
            lines.append(markdown_row(f"{row.encoder}{' *' if row is best else ''}", cells))
        lines.append("")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.4f}".replace("0.", ".", 1)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"
