"""How good each kind of backbone has to be on a world where both ids and texts tell: a change that breaks one shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.backbones import BACKBONES, represent_all
from models.catalogue import Catalogue
from models.rankers.collaborative import candidate_logits
from tests.tiny_encoder import write_tiny_encoder
from training.backbones.config import BackboneTrainingConfig
from training.backbones.full_ranking import FullRanking
from training.backbones.objectives import Objective
from training.backbones.train import train_backbone
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.metrics import hit_at, positive_ranks
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun

COLOURS = ["red", "blue", "green", "black", "white", "pink", "grey", "brown"]
OF_A_COLOUR, NEW = 8, 2
EXPECTED = {
    "sasrec": {"warm": 0.7},
    "hybrid": {"warm": 0.7, "unseen": 0.12},
    "gru4rec": {"warm": 0.7},
    "nextitnet": {"warm": 0.7},
    "ncf": {"warm": 0.5},
}
"""Hit@1 among 20 of test items, where chance is .05. Those without texts have nothing to say of unseen items.

Other items of the colour bound it to .84: of the 59 that a user did not take 19 are drawn, one of them as good. NCF has
two pairs a user to learn a vector from.
"""


@pytest.fixture(scope="module")
def split() -> SequenceSplit:
    """Everybody likes one colour. The last two items of each are new: they are only ever the last item of a user."""
    rng = np.random.default_rng(0)
    firsts = 1 + rng.integers(len(COLOURS), size=400) * OF_A_COLOUR
    taken = [first + rng.permutation(OF_A_COLOUR - NEW)[:5] for first in firsts]
    new = firsts + OF_A_COLOUR - 1 - rng.integers(NEW, size=400)
    test = np.where(rng.random(400) < 0.5, new, [items[4] for items in taken])
    count = len(COLOURS) * OF_A_COLOUR
    counts = np.bincount(np.concatenate([items[:3] for items in taken]), minlength=count + 1)[1:]
    names = [str(item) for item in range(count)]
    titles = [COLOURS[item // OF_A_COLOUR] for item in range(count)]
    catalogue = Catalogue(names, titles, [""] * count, [()] * count, counts)
    validation = np.asarray([items[3] for items in taken])
    return SequenceSplit([str(user) for user in range(400)], catalogue, [i[:3] for i in taken], validation, test)


@pytest.mark.parametrize("kind", sorted(set(BACKBONES) - {"external"}))
def test_it_finds_what_it_should(kind: str, split: SequenceSplit, tmp_path: Path) -> None:
    """Warm items by who takes them, and, with texts, items that nobody has taken yet."""
    texts = {"text_encoder": write_tiny_encoder(tmp_path, ["title", ":", *COLOURS])} if kind == "hybrid" else {}
    config = BackboneTrainingConfig(
        kind=kind,
        settings={"embedding_size": 16, "dropout": 0.1, **texts},
        objective=Objective.SOFTMAX,
        batch_size=64,
        learning_rate=5e-3,
        loop=LoopConfig(epochs=20, validate_every=10),
    )
    backbone = train_backbone(split, config, StageRun(tmp_path / "run", config, 0, {}, Console(quiet=True)))
    ranking, candidates = FullRanking.of(split, Holdout.TEST), draw_candidates(split, Holdout.TEST)
    users = represent_all(backbone, ranking.histories, users=1 + ranking.users)
    hits = hit_at(positive_ranks(candidate_logits(users, backbone.item_vectors, candidates.items)), 1)
    found = {group: float(np.mean(hits[ranking.groups[group]])) for group in EXPECTED[kind]}
    assert {group: share for group, share in found.items() if share < EXPECTED[kind][group]} == {}, found
