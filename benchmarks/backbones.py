"""Backbones side by side on one catalogue: among 20 candidates, among the whole catalogue, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.backbones import Backbone, represent_all
from models.rankers.collaborative import candidate_logits
from training.backbones.config import BackboneTrainingConfig
from training.backbones.full_ranking import FullRanking
from training.backbones.train import train_backbone
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.metrics import hit_at, ndcg_at, positive_ranks
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun

GROUPS = ("overall", "warm", "cold", "unseen")


def measure(
    dataset: Path, presets: Sequence[str], loop: LoopConfig, directory: Path, seed: int
) -> list[dict[str, Any]]:
    """Train each preset by itself, and find held-out items with it.

    Args:
        dataset: an imported one.
        presets: names of presets.
        loop: of each.
        directory: of the runs; what was trained there before is not trained again.
        seed: of training and candidates.

    Returns:
        For each preset a row on validation items, and one on test items.
    """
    split = SequenceSplit.from_dataset(Dataset.load(dataset))
    rows = []
    for name in presets:
        config = BackboneTrainingConfig(presets=(name,), loop=loop, seed=seed)
        run = StageRun(directory / name, config, seed, {"dataset": str(dataset)})
        started = time.process_time()
        backbone = train_backbone(split, config, run)
        spent = time.process_time() - started
        for holdout in Holdout:
            ends = {"epochs": f"{run.metrics['epochs']:.0f}", "cpu s": f"{spent:.0f}"}
            rows.append({"preset": name, "items": holdout.value, **figures(backbone, split, holdout, seed), **ends})
    return rows


def figures(backbone: Backbone, split: SequenceSplit, holdout: Holdout, seed: int) -> dict[str, str]:
    """Of all, warm, cold and unseen items, as far as there are any."""
    candidates = draw_candidates(split, holdout, seed)
    ranking = FullRanking.of(split, holdout)
    users_E_D = represent_all(backbone, ranking.histories, users=1 + ranking.users)
    among = positive_ranks(candidate_logits(users_E_D, backbone.item_vectors, candidates.items))
    everywhere = ranking.ranks(backbone)
    found = {
        "Hit@1 of 20": hit_at(among, 1),
        "NDCG@10 of 20": ndcg_at(among, 10),
        "NDCG@10 of all": ndcg_at(everywhere, 10),
        "Recall@100 of all": hit_at(everywhere, 100),
    }
    return {
        metric: " / ".join(_digits(values[mask]) for group in GROUPS if (mask := ranking.groups[group]).any())
        for metric, values in found.items()
    }


def _digits(values: np.ndarray) -> str:
    return f"{values.mean():.3f}".removeprefix("0")
