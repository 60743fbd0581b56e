"""The evaluation as a picture."""

from __future__ import annotations

from pathlib import Path

from training.evaluation.comparison import RankerReport
from training.evaluation.evaluate import EvaluationReport
from training.evaluation.metrics import candidates_in_words

PANELS = ("overall", "warm", "cold", "unseen")
OURS, LLM, OTHER = "tab:orange", "tab:blue", "tab:gray"
ROW = 0.28
"""Inches that a ranker takes."""


def plot(evaluation: EvaluationReport, path: Path) -> None:
    """Hit@1 of every ranker by group, with intervals, the strongest on top; the default ranker and LLMs in colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    rankers = sorted(evaluation.rankers.items(), key=lambda entry: _hit(entry[1]))
    figure = Figure(figsize=(12, 1.6 + ROW * len(rankers)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    names = [ranker.title for _, ranker in rankers]
    colors = [_color(evaluation, name) for name, _ in rankers]
    for axes, group in zip(panels, PANELS, strict=True):
        reports = [ranker.groups[group] for _, ranker in rankers]
        axes.set(title=f"{group} ({reports[0].users} users)", xlabel="Hit@1")
        if not reports[0].users:
            continue
        hits = [found.metrics["hit@1"] for found in reports]
        errors = [[hit.mean - hit.low for hit in hits], [hit.high - hit.mean for hit in hits]]
        # Positions, not names: two rankers may have one title.
        axes.barh(range(len(names)), [hit.mean for hit in hits], xerr=errors, color=colors, ecolor="black", height=0.7)
        axes.axvline(evaluation.chance["hit@1"], color="black", linestyle=":", linewidth=1)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    among = candidates_in_words(evaluation.chance["hit@1"])
    colours = "dotted: chance; orange: served, blue: with an LLM"
    figure.suptitle(f"{evaluation.dataset}: Hit@1 among {among}; {colours}", parse_math=False)
    figure.savefig(path, dpi=120)


def _color(evaluation: EvaluationReport, name: str) -> str:
    if name == evaluation.default_ranker:
        return OURS
    return LLM if evaluation.entries[name].needs_llm else OTHER


def _hit(ranker: RankerReport) -> float:
    found = ranker.groups["overall"]
    return found.metrics["hit@1"].mean if found.users else 0.0
