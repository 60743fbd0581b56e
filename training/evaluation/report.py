"""The evaluation report on paper: Markdown, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich import box
from rich.table import Table

from training.evaluation.chart import plot
from training.evaluation.comparison import COMPARED_METRICS, CheckReport, Differences, ProtocolReport, RankerReport
from training.evaluation.evaluate import EvaluationReport
from training.evaluation.metrics import Estimate, RankingReport, candidates_in_words

JSON_FILE = "report.json"
MARKDOWN_FILE = "report.md"
CHART_FILE = "report.png"

NAMES = {
    "hit@1": "Hit@1",
    "hit@5": "Hit@5",
    "hit@10": "Hit@10",
    "ndcg@10": "NDCG@10",
    "mrr": "MRR",
    "recall@20": "Recall@20",
    "recall@100": "Recall@100",
}
RANKING_METRICS = ("hit@1", "hit@5", "ndcg@10", "mrr")
GROUPS = ("overall", "warm", "cold", "unseen", "new")


POSITIVES = {
    False: "the user's last item",
    True: "the user's first item after a moment before which all that was learned happened",
}


def write_report(evaluation: EvaluationReport, directory: Path) -> None:
    """Write `report.json`, `report.md` and `report.png` into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / JSON_FILE).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (directory / MARKDOWN_FILE).write_text(markdown(evaluation), encoding="utf-8")
    plot(evaluation, directory / CHART_FILE)


def markdown(evaluation: EvaluationReport) -> str:
    """The report with all metrics and their 95 % intervals, the strongest rankers first."""
    sizes = {group: found.users for group, found in next(iter(evaluation.rankers.values())).groups.items()}
    beside = candidates_in_words(evaluation.chance["hit@1"]).removeprefix("1 + ")
    lines = [
        f"# Evaluation on {evaluation.dataset}",
        "",
        f"{evaluation.ranked_users} of {evaluation.users} users, {evaluation.items} items, LLM `{evaluation.llm}`,"
        f" seed {evaluation.seed}. One positive ({POSITIVES[evaluation.by_time]}) and {beside} uniform items that the"
        f" user had not met; mean and 95 % bootstrap interval. Chance has Hit@1 {evaluation.chance['hit@1']:.3f}.",
        "",
        *_compared_with(evaluation),
        "Users by their positive: " + ", ".join(f"{group} {sizes[group]}" for group in GROUPS) + ".",
    ]
    for group in GROUPS:
        if sizes[group]:
            lines += _ranking_lines(evaluation, group)
    lines += _order_lines(evaluation)
    for protocol in evaluation.protocols.values():
        lines += _protocol_lines(evaluation, protocol)
    lines += _check_lines(evaluation)
    lines += _all_users_lines(evaluation)
    lines += _retrieval_lines(evaluation)
    if evaluation.genres:
        lines += ["", "## Favourite genre, by users whose favourites were not learned from", ""]
        lines += markdown_head("Guess", ["Agreement", "Genre of the next item"])
        for name, share in evaluation.genres.items():
            then = evaluation.next_genres.get(name)
            lines.append(markdown_row(name, [interval(share), "-" if then is None else interval(then)]))
    return "\n".join(lines) + "\n"


def strongest_first(rankers: Mapping[str, RankerReport], metric: str = "ndcg@10") -> list[tuple[str, RankerReport]]:
    """By the mean over all users, best first."""
    return sorted(rankers.items(), key=lambda entry: -_overall(entry[1], metric))


def table(evaluation: EvaluationReport) -> Table:
    """The short form for a terminal of 80 columns, the strongest rankers first; names are whole, if need be folded."""
    shown = Table(
        title=f"{evaluation.dataset}{', split by time' if evaluation.by_time else ''}: {evaluation.ranked_users} users,"
        f" {candidates_in_words(evaluation.chance['hit@1'])} candidates",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("ranker", overflow="fold")
    beside = [name for name in ("full", "served") if name in evaluation.protocols]
    for column in ("Hit@1", "warm", "cold", "unseen", "NDCG", *beside):
        shown.add_column(column + _fewer(evaluation, column), justify="right", no_wrap=True)
    for name, ranker in strongest_first(evaluation.rankers):
        hits = [_mean(ranker.groups[group], "hit@1") for group in ("overall", "warm", "cold", "unseen")]
        others = [evaluation.protocols[protocol].rankers.get(name) for protocol in beside]
        cells = ["-" if other is None else _mean(other.groups["overall"], "ndcg@10") for other in others]
        style = "bold" if name == evaluation.default_ranker else None
        shown.add_row(ranker.title, *hits, _mean(ranker.groups["overall"], "ndcg@10"), *cells, style=style)
    chance = f"chance has Hit@1 {evaluation.chance['hit@1']:.3f}"
    shown.caption = f"NDCG at 10{''.join(f', {name}: NDCG {WHERE[name]}' for name in beside)}; {chance}"
    return shown


def _fewer(evaluation: EvaluationReport, protocol: str) -> str:
    """A second line of a protocol's heading: of how many users its figures are, where the others are of more."""
    found = evaluation.protocols.get(protocol)
    shared = None if found is None else found.shared_users
    return f"\n({shared})" if shared and shared != evaluation.ranked_users else ""


WHERE = {"full": "among all items", "served": "end to end"}


def _compared_with(evaluation: EvaluationReport) -> list[str]:
    """Who is held against whom, and how the opponent was chosen."""
    titles = {name: ranker.title for name, ranker in evaluation.rankers.items()}
    lines = []
    if evaluation.default_ranker in titles:
        lines += [f"Served unless told otherwise: {titles[evaluation.default_ranker]}.", ""]
    if evaluation.opponent is not None:
        figure = evaluation.validation[evaluation.opponent]
        lines += [
            f"Strongest without an LLM: {titles[evaluation.opponent]}, chosen by its NDCG@10 on validation items"
            f" ({figure:.3f}).",
            "",
        ]
    return lines


def _ranking_lines(evaluation: EvaluationReport, group: str) -> list[str]:
    """The table of one group under the first protocol."""
    others = _others(evaluation)
    titles = [*(NAMES[name] for name in RANKING_METRICS), *(f"Hit@1 less {title}'s" for title in others.values())]
    titles += ["ECE"] if group == "overall" else []
    lines = ["", f"## {group.capitalize()}", "", *markdown_head("Ranker", titles)]
    for _, ranker in strongest_first(evaluation.rankers):
        cells = [*_cells(ranker.groups[group], RANKING_METRICS)]
        cells += [_difference(ranker.differences.get(other), group, "hit@1") for other in others]
        cells += [_number(ranker.calibration_error)] if group == "overall" else []
        lines.append(markdown_row(ranker.title, cells))
    if group == "unseen":
        lines += _below_chance(evaluation)
    return lines + _learned_lines(evaluation, group)


def _learned_lines(evaluation: EvaluationReport, group: str) -> list[str]:
    """What rankers have that they had not before they learned."""
    lines = []
    for name, ranker in evaluation.rankers.items():
        before = evaluation.entries[name].beside
        if before in ranker.differences:
            found = ranker.differences[before]
            leads = [f"{NAMES[metric]} {_difference(found, group, metric)}" for metric in COMPARED_METRICS]
            lines += ["", f"{ranker.title}, less {evaluation.rankers[before].title}: {', '.join(leads)}."]
    return lines


def _below_chance(evaluation: EvaluationReport) -> list[str]:
    """A sentence on those who are worse than chance on items without interactions."""
    chance = evaluation.chance["hit@1"]
    below = [
        f"{ranker.title} ({ranker.groups['unseen'].metrics['hit@1'].mean:.3f})"
        for _, ranker in strongest_first(evaluation.rankers)
        if ranker.groups["unseen"].metrics["hit@1"].high < chance
    ]
    if not below:
        return []
    return [
        "",
        f"Chance has {chance:.3f} here. Below it: {', '.join(below)}. To count interactions, or to have met an item"
        " only as a negative, is worse than to know nothing of it, so being ahead of these on cold and unseen items"
        " says little; the fair opponents there are those that read texts.",
    ]


def _order_lines(evaluation: EvaluationReport) -> list[str]:
    """Whose order whose is like."""
    reference = evaluation.rankers[evaluation.reference].title
    titles = [f"with {reference}'s", "among known items", "with what it reads"]
    lines = ["", "## Orders alike (Spearman)", "", *markdown_head("Ranker", titles)]
    for _, ranker in strongest_first(evaluation.rankers):
        found = (ranker.rank_correlation, ranker.known_correlation, ranker.reading_correlation)
        lines.append(markdown_row(ranker.title, [_number(value) for value in found]))
    return lines


def _protocol_lines(evaluation: EvaluationReport, protocol: ProtocolReport) -> list[str]:
    others, names = _others(evaluation), list(_metrics_of(protocol))
    sizes = {group: found.users for group, found in next(iter(protocol.rankers.values())).groups.items()}
    titles = [*(f"{NAMES[name]} ({sizes['overall']})" for name in names), f"cold: NDCG@10 ({sizes['cold']})"]
    titles += [f"NDCG@10 less {title}'s" for title in others.values()]
    more = any(ranker.of_all for ranker in protocol.rankers.values())
    titles += ["NDCG@10 of all asked"] * more
    about = f"{protocol.shared_users} users, whom all rankers were asked about"
    about += (
        f"; others were asked about {protocol.users}, and have their figure of these at the right." if more else "."
    )
    chance = "".join(f" Chance has {NAMES[name]} {value:.3f}." for name, value in list(protocol.chance.items())[:1])
    lines = ["", f"## {protocol.title}", "", f"{about}{chance}", ""]
    lines += markdown_head("Ranker", titles)
    for _, ranker in strongest_first(protocol.rankers):
        overall, cold = ranker.groups["overall"], ranker.groups["cold"]
        cells = [*_cells(overall, names), *_cells(cold, ["ndcg@10"])]
        cells += [_difference(ranker.differences.get(other), "overall", "ndcg@10") for other in others]
        everyone = ranker.of_all.get("overall", overall)
        cells += [f"{', '.join(_cells(everyone, ['ndcg@10']))}, {everyone.users}"] * more
        lines.append(markdown_row(ranker.title, cells))
    return lines


def _check_lines(evaluation: EvaluationReport) -> list[str]:
    """What every ranker loses by every check."""
    if not evaluation.checks:
        return []
    lines = [
        "",
        "## What rankers use",
        "",
        "What is lost of Hit@1 and NDCG@10, user by user, when nothing else changes.",
        "",
    ]
    checks = evaluation.checks.values()
    lines += markdown_head(
        "Ranker", [f"{check.title}: {NAMES[name]}" for check in checks for name in ("hit@1", "ndcg@10")]
    )
    for name, ranker in strongest_first(evaluation.rankers):
        cells = [_loss(check, name, metric) for check in checks for metric in ("hit@1", "ndcg@10")]
        lines.append(markdown_row(ranker.title, cells))
    return lines


def _all_users_lines(evaluation: EvaluationReport) -> list[str]:
    if evaluation.users <= evaluation.ranked_users:
        return []
    lines = ["", f"## All {evaluation.users} users, without the LLM", ""]
    lines += markdown_head("Ranker", [NAMES[name] for name in RANKING_METRICS])
    for name, groups in evaluation.all_users.items():
        lines.append(markdown_row(evaluation.rankers[name].title, _cells(groups["overall"], RANKING_METRICS)))
    return lines


def _retrieval_lines(evaluation: EvaluationReport) -> list[str]:
    names = ("recall@20", "recall@100")
    lines = ["", f"## Retrieval among all {evaluation.items} items", ""]
    lines += markdown_head("Vectors, positives", [NAMES[name] for name in names])
    for name, by_group in evaluation.retrieval.items():
        for group, found in by_group.items():
            if found.users:
                lines.append(markdown_row(f"{evaluation.retrievers[name]}, {group}", _cells(found, names)))
    return lines


def _others(evaluation: EvaluationReport) -> dict[str, str]:
    """Titles of those that all are compared with, by id."""
    names = dict.fromkeys([evaluation.reference, *([evaluation.opponent] if evaluation.opponent else [])])
    return {name: evaluation.rankers[name].title for name in names}


def _metrics_of(protocol: ProtocolReport) -> Iterable[str]:
    return next(iter(protocol.rankers.values())).groups["overall"].metrics


def markdown_head(first: str, titles: list[str]) -> list[str]:
    """The first two lines of a table."""
    return [markdown_row(first, titles), "|---|" + "---|" * len(titles)]


def markdown_row(first: str, cells: list[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join([first, *cells]) + " |"


def _cells(found: RankingReport, names: Iterable[str]) -> list[str]:
    return [interval(found.metrics[name]) if found.users else "-" for name in names]


def interval(estimate: Estimate) -> str:
    """A mean and its interval."""
    return f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _difference(found: Differences | None, group: str, metric: str) -> str:
    return "-" if found is None or group not in found else interval(found[group][metric])


def _loss(check: CheckReport, name: str, metric: str) -> str:
    return _difference(check.losses.get(name), "overall", metric)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _mean(found: RankingReport, name: str) -> str:
    return f"{found.metrics[name].mean:.3f}" if found.users else "-"


def _overall(ranker: RankerReport, metric: str) -> float:
    found = ranker.groups["overall"]
    return found.metrics[metric].mean if found.users else 0.0
