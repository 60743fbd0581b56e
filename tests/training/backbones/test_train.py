"""Training a backbone: windows, objectives, and that it learns what there is to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbones import create_backbone, represent_all
from models.catalogue import Catalogue
from models.rankers.collaborative import candidate_logits
from training.backbones.config import BackboneTrainingConfig, Preset
from training.backbones.loss import WindowLoss
from training.backbones.objectives import Objective
from training.backbones.train import train_backbone
from training.backbones.windows import WindowBatch, Windows
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import Candidates, draw_candidates
from training.evaluation.metrics import mean_metrics
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun

GROUPS, GROUP_ITEMS = 4, 10


def make_split(users: int = 240, seed: int = 0) -> SequenceSplit:
    """Users walk in a ring of ten items, one ring of four each: the last item tells the next, popularity nothing."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(users):
        ring, start = rng.integers(GROUPS), rng.integers(GROUP_ITEMS)
        steps = np.arange(start, start + rng.integers(4, 9))
        sequences.append(1 + ring * GROUP_ITEMS + steps % GROUP_ITEMS)
    count = GROUPS * GROUP_ITEMS
    interactions = np.bincount(np.concatenate([s[:-2] for s in sequences]), minlength=count + 1)[1:]
    names = [str(item) for item in range(1, count + 1)]
    catalogue = Catalogue(names, names, [""] * count, [()] * count, interactions)
    held_out = np.array([s[-2:] for s in sequences])
    return SequenceSplit(
        [str(u) for u in range(users)], catalogue, [s[:-2] for s in sequences], held_out[:, 0], held_out[:, 1]
    )


def make_run(directory: Path, config: BackboneTrainingConfig) -> StageRun:
    return StageRun(directory, config, config.seed, {})


def test_windows_hold_every_step_once() -> None:
    """Six items in windows of two inputs, counted from the latest; a sequence of one item gives none."""
    windows = Windows([np.array([1, 2, 3, 4, 5, 6]), np.array([7]), np.array([8, 9])], max_length=2)
    assert windows.items_of(np.arange(4)).tolist() == [[4, 5, 6], [2, 3, 4], [0, 1, 2], [0, 8, 9]]
    assert windows.items_of(np.array([3, 2])).tolist() == [[8, 9], [1, 2]]
    assert windows.distinct_items.tolist() == list(range(1, 10))
    assert windows.users.tolist() == [0, 0, 0, 2]
    assert windows.lengths.tolist() == [2, 2, 1, 1]


def test_window_batches_cover_all_rows_and_group_like_lengths() -> None:
    """Every row once; a batch of long windows has no short one."""
    sequences = [np.arange(1, 3)] * 6 + [np.arange(1, 11)] * 6
    windows = Windows(sequences, max_length=20)
    batches = windows.batches(3, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(12))
    assert [len(set(windows.lengths[rows].tolist())) for rows in batches] == [1] * 4


def test_softmax_is_over_all_items_with_interactions() -> None:
    """Cropped to its longest window or not, a batch has the plain mean over its windows' positions.

    Items that are never met are no negatives: they would only be learned to lose.
    """
    split = make_split(users=20)
    backbone = create_backbone("sasrec", {"num_items": 40, "embedding_size": 8, "max_length": 30}).eval()
    windows = Windows(split.train, 30)
    loss = WindowLoss(backbone, windows, split, Preset(objective=Objective.SOFTMAX))
    met = np.flatnonzero(split.catalogue.trained).tolist()
    assert len(met) < 40
    terms = []
    for row in np.arange(10):
        items = torch.from_numpy(windows.items_of(np.array([row]))[0])
        logits = backbone.outputs(items[None, :-1])[0] @ backbone.item_vectors[torch.tensor(met)].T
        places = torch.tensor([met.index(item) for item in items[1:].tolist()])
        terms.append(torch.nn.functional.cross_entropy(logits, places, reduction="none"))
    torch.testing.assert_close(loss(WindowBatch(np.arange(10), (0, 0, 0))), torch.cat(terms).mean())


def test_gathering_each_item_once_does_not_change_the_loss() -> None:
    """BCE of a batch is the mean over its positions, worked out from the full table with the same negatives."""
    split = make_split(users=20)
    backbone = create_backbone("sasrec", {"num_items": 40, "embedding_size": 8, "max_length": 30}).eval()
    windows = Windows(split.train, 30)
    loss = WindowLoss(backbone, windows, split, Preset())
    batch = WindowBatch(np.arange(10), (0, 0, 0))
    users = np.repeat(windows.users[batch.rows], windows.lengths[batch.rows])
    sampler = split.negative_sampler(trained_only=True)
    negatives = iter(sampler.sample(users, 1, np.random.default_rng(batch.seed))[:, 0])
    terms = []
    for row in batch.rows:
        items = torch.from_numpy(windows.items_of(np.array([row]))[0])
        outputs = backbone.outputs(items[None, :-1])[0]
        for output, target in zip(outputs, items[1:], strict=True):
            positive, negative = output @ backbone.item_vectors[torch.tensor([target, next(negatives)])].T
            terms.append(-torch.log(torch.sigmoid(positive)) - torch.log(1 - torch.sigmoid(negative)))
    torch.testing.assert_close(loss(batch), torch.stack(terms).mean())


@pytest.mark.parametrize("objective", list(Objective))
def test_gathering_serves_backbones_that_compute_their_vectors(objective: Objective) -> None:
    """Reading texts or the table made of them, the loss is the same, and training moves the adapter."""
    split = make_split(users=20)
    hybrid = create_backbone("hybrid", {"num_items": 40, "embedding_size": 8, "text_size": 3}).eval()
    hybrid.read_texts(torch.randn(41, 3), torch.from_numpy(split.catalogue.trained))
    frozen = create_backbone("hybrid", hybrid.config).eval()
    frozen.load_state_dict(hybrid.weights())
    windows, batch = Windows(split.train, 30), WindowBatch(np.arange(10), (0, 0, 0))
    losses = [WindowLoss(each, windows, split, Preset(objective=objective))(batch) for each in (hybrid, frozen)]
    torch.testing.assert_close(*losses)
    losses[0].backward()
    assert hybrid.adapter.weight.grad.any()


def test_candidate_scores_are_inner_products_and_padding_is_last() -> None:
    """x_u . E_i by hand; column 2 is padding."""
    users = torch.tensor([[1.0, 2.0]])
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, -1.0]])
    scores = candidate_logits(users, table, np.array([[1, 2, 0]]))
    assert scores.tolist() == [[1.0, -1.5, -np.inf]]


def test_some_users_are_spread_evenly() -> None:
    """Three of five users, with their own items; all if there are fewer."""
    candidates = Candidates(np.arange(5), np.arange(10).reshape(5, 2))
    assert candidates.at_most(3).users.tolist() == [0, 2, 4]
    assert candidates.at_most(3).items.tolist() == [[0, 1], [4, 5], [8, 9]]
    assert candidates.at_most(9).users.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("objective", list(Objective))
def test_every_objective_learns_the_rings(objective: Objective, tmp_path: Path) -> None:
    """From chance (.05) to nearly always right on held-out steps, and the saved backbone is the trained one."""
    split = make_split()
    config = BackboneTrainingConfig(
        settings={"embedding_size": 16, "dropout": 0.1, "max_length": 8},
        objective=objective,
        batch_size=64,
        learning_rate=1e-2,
        loop=LoopConfig(epochs=40, validate_every=10),
    )
    run = make_run(tmp_path / "run", config)
    backbone = train_backbone(split, config, run)
    candidates = draw_candidates(split, Holdout.TEST)
    histories = [split.history(int(user), Holdout.TEST) for user in candidates.users]
    scores = candidate_logits(represent_all(backbone, histories), backbone.item_vectors, candidates.items)
    assert mean_metrics(scores)["hit@1"] > 0.85
    assert run.is_done
    names = {path.name for path in run.directory.iterdir()}
    assert {"config.json", "metrics.json", "curve.json", "curve.png", "backbone.safetensors", "done"} <= names
    assert "checkpoint.pt" not in names


def test_a_finished_stage_is_loaded_not_trained(tmp_path: Path) -> None:
    """The second call returns the same weights and writes nothing."""
    split = make_split(users=20)
    config = BackboneTrainingConfig(settings={"embedding_size": 4}, loop=LoopConfig(epochs=1))
    first = train_backbone(split, config, make_run(tmp_path / "run", config))
    written = (tmp_path / "run" / "done").stat().st_mtime_ns
    second = train_backbone(split, config, make_run(tmp_path / "run", config))
    assert torch.equal(first.item_vectors, second.item_vectors)
    assert (tmp_path / "run" / "done").stat().st_mtime_ns == written


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    """Same seed, same weights; another seed, other weights."""
    split = make_split(users=20)
    tables = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = BackboneTrainingConfig(settings={"embedding_size": 4}, loop=LoopConfig(epochs=2), seed=seed)
        tables.append(train_backbone(split, config, make_run(tmp_path / name, config)).item_vectors)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
