"""The evaluation report on paper: Markdown, a chart, and a table for the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from training.evaluation.evaluate import EvaluationReport, RankerReport
from training.evaluation.metrics import Estimate, RankingReport

JSON_FILE = "report.json"
MARKDOWN_FILE = "report.md"
CHART_FILE = "report.png"

RANKING_METRICS = {"hit@1": "Hit@1", "hit@5": "Hit@5", "ndcg@10": "NDCG@10", "mrr": "MRR"}
DIFFERENCE = "Hit@1 less {}'s"
SHORT_GROUPS = ("overall", "warm", "cold", "unseen")
GROUPS = (*SHORT_GROUPS, "new")


def write_report(evaluation: EvaluationReport, directory: Path) -> None:
    """Write `report.json`, `report.md` and `report.png` into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / JSON_FILE).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (directory / MARKDOWN_FILE).write_text(markdown(evaluation), encoding="utf-8")
    plot(evaluation, directory / CHART_FILE)


def markdown(evaluation: EvaluationReport) -> str:
    """The report with all metrics and their 95 % intervals."""
    sizes = {group: found.users for group, found in next(iter(evaluation.rankers.values())).groups.items()}
    lines = [
        f"# Evaluation on {evaluation.dataset}",
        "",
        f"{evaluation.ranked_users} of {evaluation.users} users, {evaluation.items} items, LLM `{evaluation.llm}`,"
        f" seed {evaluation.seed}. One positive (the user's last item) and 19 uniform non-interacted items;"
        " mean and 95 % bootstrap interval.",
        "",
        "Users by their positive: " + ", ".join(f"{group} {sizes[group]}" for group in GROUPS) + ".",
    ]
    for group in GROUPS:
        if sizes[group]:
            lines += _ranking_lines(evaluation, group)
    if evaluation.users > evaluation.ranked_users:
        lines += ["", f"## All {evaluation.users} users, without the LLM", ""]
        lines += _head("Ranker", list(RANKING_METRICS.values()))
        for name, groups in evaluation.all_users.items():
            lines.append(_row(evaluation.rankers[name].title, _cells(groups["overall"])))
    lines += ["", f"## Retrieval among all {evaluation.items} items", ""]
    lines += _head("Vectors, positives", ["Recall@20", "Recall@100"])
    for name, by_group in evaluation.retrieval.items():
        for group, recalls in by_group.items():
            lines.append(
                _row(
                    f"{evaluation.retrievers[name]}, {group}",
                    [_interval(recalls[key]) for key in ("recall@20", "recall@100")],
                )
            )
    if evaluation.genres:
        lines += ["", "## Favourite genre, by users whose favourites were not learned from", ""]
        lines += _head("Guess", ["Agreement"])
        lines += [_row(name, [_interval(share)]) for name, share in evaluation.genres.items()]
    return "\n".join(lines) + "\n"


def _ranking_lines(evaluation: EvaluationReport, group: str) -> list[str]:
    """The table of one group; that of all users also has the correlations."""
    reference = evaluation.rankers[evaluation.reference].title
    titles = [*RANKING_METRICS.values(), DIFFERENCE.format(reference)]
    if group == "overall":
        titles += [f"Spearman with {reference}", "among known items", "with what it reads"]
    lines = ["", f"## {group.capitalize()}", "", *_head("Ranker", titles)]
    for ranker in evaluation.rankers.values():
        cells = [*_cells(ranker.groups[group]), _interval(ranker.differences[group])]
        if group == "overall":
            cells += [f"{found:.3f}" if found is not None else "-" for found in _correlations(ranker)]
        lines.append(_row(ranker.title, cells))
    return lines


def table(evaluation: EvaluationReport) -> Table:
    """The short form for a terminal of 80 columns: Hit@1 by group, NDCG@10, rank correlation with the reference."""
    shown = Table(title=f"{evaluation.dataset}: {evaluation.ranked_users} users, 1 + 19 candidates")
    shown.add_column("ranker", no_wrap=True)
    for column in ("Hit@1", "warm", "cold", "unseen", "NDCG", "order"):
        shown.add_column(column, justify="right")
    for ranker in evaluation.rankers.values():
        hits = [_mean(ranker.groups[group], "hit@1") for group in SHORT_GROUPS]
        ndcg = _mean(ranker.groups["overall"], "ndcg@10")
        shown.add_row(ranker.title, *hits, ndcg, f"{ranker.rank_correlation:.2f}")
    reference = evaluation.rankers[evaluation.reference].title
    shown.caption = f"NDCG at 10; order: Spearman with {reference}'s"
    return shown


def plot(evaluation: EvaluationReport, path: Path) -> None:
    """Hit@1 of every ranker by group, with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharey=True)
    rankers = list(evaluation.rankers.values())[::-1]
    names = [ranker.title for ranker in rankers]
    for axes, group in zip(panels, ("overall", "warm", "cold"), strict=True):
        reports = [ranker.groups[group] for ranker in rankers]
        if not reports[0].users:
            continue
        hits = [found.metrics["hit@1"] for found in reports]
        below = [hit.mean - hit.low for hit in hits]
        above = [hit.high - hit.mean for hit in hits]
        axes.barh(names, [hit.mean for hit in hits], xerr=[below, above], color="tab:blue", ecolor="black")
        axes.set(title=f"{group} ({reports[0].users} users)", xlabel="Hit@1")
    figure.suptitle(evaluation.dataset)
    figure.savefig(path, dpi=120)


def _head(first: str, titles: list[str]) -> list[str]:
    return [_row(first, titles), "|---|" + "---|" * len(titles)]


def _row(first: str, cells: list[str]) -> str:
    return "| " + " | ".join([first, *cells]) + " |"


def _cells(found: RankingReport) -> list[str]:
    return [_interval(found.metrics[name]) for name in RANKING_METRICS]


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _correlations(ranker: RankerReport) -> list[float | None]:
    return [ranker.rank_correlation, ranker.known_correlation, ranker.reading_correlation]


def _mean(found: RankingReport, name: str) -> str:
    return f"{found.metrics[name].mean:.3f}" if found.users else "-"
