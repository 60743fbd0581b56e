"""What a run's `metrics.json` has of the blends."""

from __future__ import annotations

from typing import Any

from models.bundle.blend import Blends, GenreBlends


def genre_figures(genres: GenreBlends) -> dict[str, float]:
    """For `metrics.json`: how often favourites are named, on validation users."""
    blended = {"blend": genres.blend.validation, "llm_blend": genres.llm.validation}
    named = {f"{name}.{key}": value for name, figures in blended.items() for key, value in figures.items()}
    return {**genres.validation, **named}


def worth(blends: Blends) -> dict[str, Any]:
    """For `metrics.json`: what each signal is worth, the LLM first, and the blends' validation metrics."""
    lifts = {signal.id: signal.lift.ndcg for signal in blends.blend.signals if signal.lift is not None}
    llm = {} if blends.llm_lift is None else {"llm": blends.llm_lift.ndcg}
    over_cf = blends.llm_lift_over_cf
    return {
        "lift_ndcg": {**llm, **lifts},
        "llm_over_cf": None if over_cf is None else over_cf.model_dump(mode="json"),
        "validation": blends.blend.validation,
        "recall@100": blends.retrieval.validation,
        "genres": {} if blends.genres is None else genre_figures(blends.genres),
    }
