"""The backbones beside another library's, on the same split: files for it, and one table of what both found.

Axes: E users, N items, D embedding size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.backbones import represent_all
from training.backbones.config import BackboneTrainingConfig
from training.backbones.full_ranking import FullRanking
from training.backbones.objectives import Objective
from training.backbones.train import train_backbone
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.metrics import hit_at, ndcg_at
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
MOST_ITEMS = 50
KNOWN = "known.txt"
LOOP = LoopConfig(epochs=100, validate_every=2, patience=5)
OURS: dict[str, dict[str, Any]] = {
    "ours-sasrec-bce": {"kind": "sasrec", "settings": {"dropout": 0.2}},
    "ours-sasrec-softmax": {
        "kind": "sasrec",
        "settings": {"dropout": 0.5},
        "objective": Objective.SOFTMAX,
        "learning_rate": 2e-3,
    },
    "ours-sasrec-sampled": {
        "kind": "sasrec",
        "settings": {"dropout": 0.5},
        "objective": Objective.SAMPLED_SOFTMAX,
        "negatives": 512,
        "learning_rate": 2e-3,
    },
    "ours-gru4rec-bce": {"kind": "gru4rec", "settings": {"dropout": 0.2}},
    "ours-gru4rec-softmax": {
        "kind": "gru4rec",
        "settings": {"dropout": 0.4},
        "objective": Objective.SOFTMAX,
        "learning_rate": 2e-3,
    },
}
"""The recipe `papers`' backbone and the presets, all with the paper's embedding size of 50."""


def write_split(dataset: Path, out: Path) -> None:
    """Write leave-last-out as RecBole's atomic files: a history, at most 50 items of it, and the item after it.

    Items are numbered 1..N in the catalogue's order, users from 0. A user is in `NAME.train.inter` once for every
    training item but the first, in `NAME.validation.inter` and `NAME.test.inter` once; `NAME.item` has all items, and
    `known.txt` whole what each user of the validation file met before.

    Args:
        dataset: an imported one.
        out: the folder; NAME is its name.
    """
    split = SequenceSplit.from_dataset(Dataset.load(dataset))
    out.mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: Iterable[tuple[int, np.ndarray, int]]) -> None:
        lines = (f"{user}\t{' '.join(map(str, items[-MOST_ITEMS:]))}\t{target}\n" for user, items, target in rows)
        (out / f"{out.name}.{name}").write_text(HEADER + "".join(lines), encoding="utf-8")

    pairs = (
        (user, items[:at], int(items[at])) for user, items in enumerate(split.train) for at in range(1, len(items))
    )
    write("train.inter", pairs)
    for holdout in Holdout:
        ranking = FullRanking.of(split, holdout)
        write(f"{holdout.value}.inter", zip(ranking.users.tolist(), ranking.histories, ranking.positives, strict=True))
    numbers = "".join(f"{number}\n" for number in range(1, len(split.catalogue) + 1))
    (out / f"{out.name}.item").write_text(f"item_id:token\n{numbers}", encoding="utf-8")
    known = FullRanking.of(split, Holdout.VALIDATION).histories
    (out / KNOWN).write_text("".join(f"{' '.join(map(str, items))}\n" for items in known), encoding="utf-8")


def train_ours(dataset: Path, out: Path, name: str, seed: int, loop: LoopConfig = LOOP) -> None:
    """Train a backbone and write its vectors as the other library's are: `OUT/NAME.SEED.npz`.

    Args:
        dataset: the one that `out` was written from.
        out: the folder.
        name: in `OURS`.
        seed: of training.
        loop: when it ends.
    """
    split = SequenceSplit.from_dataset(Dataset.load(dataset))
    config = BackboneTrainingConfig(**OURS[name], loop=loop, seed=seed)
    backbone = train_backbone(split, config, StageRun(out / "runs" / f"{name}.{seed}", config, seed, {}))
    vectors = {}
    for holdout in Holdout:
        ranking = FullRanking.of(split, holdout)
        vectors[holdout.value] = represent_all(backbone, ranking.histories).numpy()
    np.savez(out / f"{name}.{seed}.npz", items=backbone.item_vectors.detach().numpy(), **vectors)


def score(dataset: Path, out: Path) -> list[dict[str, str]]:
    """A row for each name of which `out` has vectors: means over users and seeds, and how far seeds lie apart.

    Args:
        dataset: the one that `out` was written from.
        out: the folder.
    """
    split = SequenceSplit.from_dataset(Dataset.load(dataset))
    rankings = {holdout: FullRanking.of(split, holdout) for holdout in Holdout}
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for path in sorted(out.glob("*.npz")):
        with np.load(path) as vectors:
            items = torch.from_numpy(vectors["items"])
            ranks = {
                holdout: ranking.ranks_by(torch.from_numpy(vectors[holdout.value]), items)
                for holdout, ranking in rankings.items()
            }
        found[path.stem.rpartition(".")[0]].append(figures(ranks))
    return [{"vectors": name, "seeds": str(len(seeds))} | _row(seeds) for name, seeds in found.items()]


def figures(ranks: Mapping[Holdout, np.ndarray]) -> dict[str, float]:
    """Of one seed: NDCG@10 of validation items, Recall and NDCG at 10 and 20 of test items."""
    test = ranks[Holdout.TEST]
    values = {
        f"{name}@{k}": metric(test, k) for name, metric in (("Recall", hit_at), ("NDCG", ndcg_at)) for k in (10, 20)
    }
    values = {"validation NDCG@10": ndcg_at(ranks[Holdout.VALIDATION], 10)} | values
    return {name: float(each.mean()) for name, each in values.items()}


def _row(seeds: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Means, and half the range of the seeds."""
    columns = {name: np.asarray([seed[name] for seed in seeds]) for name in seeds[0]}
    return {
        name: f"{values.mean():.4f} ± {np.ptp(values) / 2:.4f}".replace("0.", ".") for name, values in columns.items()
    }
