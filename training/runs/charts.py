"""Training curves as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_curve(curve: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Plot loss and validation metrics over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, metric_axes = figure.subplots(1, 2)
    losses = [record for record in curve if "loss" in record]
    loss_axes.plot([record["epoch"] for record in losses], [record["loss"] for record in losses])
    loss_axes.set(title=title, xlabel="epoch", ylabel="training loss")
    validations = [record for record in curve if "loss" not in record]
    names = [name for name in (validations[0] if validations else {}) if name not in {"step", "epoch", "minutes"}]
    for name in names:
        points = [record for record in validations if name in record]
        metric_axes.plot([r["epoch"] for r in points], [r[name] for r in points], marker=".", label=name)
    metric_axes.set(title="validation", xlabel="epoch")
    if names:
        metric_axes.legend()
    figure.savefig(path, dpi=120)
