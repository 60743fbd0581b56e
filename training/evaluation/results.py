"""The results over several seeds on paper: the table that decides, the strongest rankers first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from training.evaluation.comparison import Differences
from training.evaluation.measures import UNIFORM
from training.evaluation.report import NAMES, interval, markdown_head, markdown_row
from training.evaluation.seeds import SeedProtocol, SeedRanker, SeedReport

COLUMNS = (("overall", "hit@1"), ("warm", "hit@1"), ("cold", "hit@1"), ("unseen", "hit@1"), ("overall", "ndcg@10"))
RESULTS_NAME = "results"


def write_results(reports: Mapping[str, SeedReport], directory: Path) -> None:
    """Write `results.md`, and `results-<name>.json` of each report, into `directory`.

    Args:
        reports: by what their datasets are called; two may have been imported under the same name.
        directory: made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, report in reports.items():
        path = directory / f"{RESULTS_NAME}-{name}.json"
        path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    text = "\n".join(results_markdown(name, report) for name, report in reports.items())
    (directory / f"{RESULTS_NAME}.md").write_text(text, encoding="utf-8")


def results_markdown(name: str, report: SeedReport) -> str:
    """The dataset of that name: the table of the first protocol, then the others."""
    sizes = ", ".join(f"{group} {count}" for group, count in report.users.items())
    lines = [
        f"## {name}",
        "",
        f"{report.seeds} seeds, {report.items} items, LLM `{report.llm}`. Users: {sizes}. Chance has Hit@1"
        f" {report.chance:.3f}. Means over seeds, 95 % intervals over users and seeds; the strongest first. `lead` is"
        " what the served ranker (bold) has more, user by user.",
        "",
    ]
    uniform = report.protocols[UNIFORM.id]
    if report.opponent is not None:
        lines += [f"Strongest without an LLM on validation: {uniform.rankers[report.opponent].title}.", ""]
    titles = [NAMES[name] if group == "overall" else group for group, name in COLUMNS]
    lines += markdown_head("Ranker", [*titles, "lead in Hit@1", "lead in NDCG@10"])
    for ranker_id, ranker in _strongest_first(uniform):
        cells = [_cell(ranker.groups, group, metric) for group, metric in COLUMNS]
        cells += [_cell(ranker.lead, "overall", metric) for metric in ("hit@1", "ndcg@10")]
        lines.append(markdown_row(_title(report, ranker_id, ranker), cells))
    for protocol in (protocol for protocol_id, protocol in report.protocols.items() if protocol_id != UNIFORM.id):
        lines += _protocol_lines(report, protocol)
    return "\n".join(lines) + "\n"


def _protocol_lines(report: SeedReport, protocol: SeedProtocol) -> list[str]:
    names = list(next(iter(protocol.rankers.values())).by_seed)
    titles = [f"{NAMES[name]} ({protocol.shared_users})" for name in names]
    titles += ["cold: NDCG@10", "lead in NDCG@10"]
    more = any(ranker.of_all for ranker in protocol.rankers.values())
    titles += ["NDCG@10 of all asked"] * more
    lines = ["", f"### {protocol.title}", "", *markdown_head("Ranker", titles)]
    for name, ranker in _strongest_first(protocol):
        cells = [_cell(ranker.groups, "overall", metric) for metric in names]
        cells += [_cell(ranker.groups, "cold", "ndcg@10"), _cell(ranker.lead, "overall", "ndcg@10")]
        cells += [f"{_cell(ranker.of_all or ranker.groups, 'overall', 'ndcg@10')}, {ranker.users}"] * more
        lines.append(markdown_row(_title(report, name, ranker), cells))
    return lines


def _strongest_first(protocol: SeedProtocol) -> list[tuple[str, SeedRanker]]:
    return sorted(protocol.rankers.items(), key=lambda entry: -entry[1].groups["overall"]["ndcg@10"].mean)


def _title(report: SeedReport, name: str, ranker: SeedRanker) -> str:
    return f"**{ranker.title}**" if name == report.default_ranker else ranker.title


def _cell(found: Differences, group: str, metric: str) -> str:
    return interval(found[group][metric]) if group in found else "-"
