"""Stage 1: its losses by hand, its tables, its phases, and that unseen items find their place by text."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn import functional

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.text_encoder import TextEncoder
from models.backbones import Backbone, represent_all
from models.backbones.hybrid import HybridConfig
from models.catalogue import Catalogue
from models.errors import DataError
from models.rankers.collaborative import candidate_logits
from tests.tiny_encoder import write_tiny_encoder
from training.allmrec.stage1.config import Stage1Config
from training.allmrec.stage1.loss import Stage1Loss, ranking_loss
from training.allmrec.stage1.stage import Stage1, chosen_positions, train_stage1
from training.backbones.config import BackboneTrainingConfig
from training.backbones.objectives import Objective
from training.backbones.texts import item_text_vectors
from training.backbones.train import train_backbone
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.metrics import mean_metrics
from training.runs.loop import Interrupted, LoopConfig
from training.runs.stage_run import StageRun

GROUPS, GROUP_ITEMS, NEW = 8, 8, 2
COLOURS = ["red", "blue", "green", "black", "white", "pink", "grey", "brown"]
WORDS = ["title", ":", *COLOURS, "one", "two", "three", "four", "five"]


def make_split(users: int = 300, seed: int = 0) -> SequenceSplit:
    """Users like one colour of eight and watch its items over and over; the title tells the colour.

    The last two items of each colour are too new for training: they are only ever the last item watched.
    """
    rng = np.random.default_rng(seed)
    train, validation, test = [], [], []
    for _ in range(users):
        items = 1 + rng.integers(GROUPS) * GROUP_ITEMS + rng.integers(GROUP_ITEMS - NEW, size=7)
        train.append(items[:5])
        validation.append(items[5])
        new = 1 + (items[0] - 1) // GROUP_ITEMS * GROUP_ITEMS + GROUP_ITEMS - 1 - rng.integers(NEW)
        test.append(new if rng.random() < 0.5 else items[6])
    count = GROUPS * GROUP_ITEMS
    titles = [f"{COLOURS[item // GROUP_ITEMS]} {WORDS[-1 - rng.integers(5)]}" for item in range(count)]
    seen = np.bincount(np.concatenate(train), minlength=count + 1)[1:]
    catalogue = Catalogue([str(i) for i in range(count)], titles, [""] * count, [()] * count, seen)
    return SequenceSplit([str(u) for u in range(users)], catalogue, train, np.array(validation), np.array(test))


@pytest.fixture(scope="module")
def split() -> SequenceSplit:
    return make_split()


@pytest.fixture(scope="module")
def backbone(split: SequenceSplit, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    config = BackboneTrainingConfig(
        settings={"embedding_size": 12, "dropout": 0.1, "max_length": 8},
        batch_size=64,
        learning_rate=5e-3,
        loop=LoopConfig(epochs=30, validate_every=10),
    )
    return train_backbone(split, config, StageRun(tmp_path_factory.mktemp("backbone"), config, 0, {}))


@pytest.fixture(scope="module")
def encoder_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"), WORDS)


def make_config(encoder_path: str, **fields: object) -> Stage1Config:
    defaults = {
        "text_encoder": encoder_path,
        "joint_size": 24,
        "head_learning_rate": 1e-2,
        "head_batch_size": 64,
        "heads": {"max_steps": 300},
        "loop": {"max_steps": 20},
        "refit": {"max_steps": 30},
    }
    return Stage1Config.model_validate(defaults | fields)


def make_run(directory: Path, config: Stage1Config) -> StageRun:
    return StageRun(directory, config, config.seed, {}, Console(quiet=True))


@pytest.mark.parametrize(("matching", "recommendation"), [(1.0, 1.0), (0.0, 1.0), (0.3, 0.0)])
def test_loss_by_hand(matching: float, recommendation: float) -> None:
    """All five terms, written out item by item from the paper's formulas, positives and negatives summed."""
    torch.manual_seed(0)
    alignment = Alignment(AlignmentConfig(cf_size=3, text_size=4, joint_size=5))
    alignment.item_scale.fit(torch.randn(9, 3))
    alignment.text_scale.fit(torch.randn(9, 4))
    users, items, texts = torch.randn(2, 3), torch.randn(4, 3), torch.randn(4, 4)
    weights = {"item_reconstruction": 0.5, "text_reconstruction": 0.2, "text_recommendation": 0.7}
    config = Stage1Config(matching=matching, recommendation=recommendation, **weights)
    expected = torch.zeros(())
    for user in range(2):
        for item, sign in ((user, 1.0), (user + 2, -1.0)):
            e, q = alignment.encode_items(items[item]), alignment.encode_texts(texts[item])
            spread = alignment.item_scale.spread**2
            expected = expected + matching * ((e - q) ** 2).mean()
            expected = expected + 0.5 * ((alignment.decode_items(e) - items[item]) ** 2).mean() / spread
            decoded_text = alignment.text_scale.inverse(alignment.text_decoder(q))
            text_error = ((decoded_text - texts[item]) ** 2).mean()
            expected = expected + 0.2 * text_error / alignment.text_scale.spread**2
            for weight, decoded in ((recommendation, alignment.decode_items(e)), (0.7, alignment.decode_items(q))):
                right = torch.sigmoid(sign * (users[user] @ decoded))
                expected = expected - weight * torch.log(right)
    found = Stage1Loss(alignment, config)(users, items, texts)
    torch.testing.assert_close(found, expected / 2)


def test_the_text_target_is_detached() -> None:
    """With text reconstruction alone, no gradient flows into Q through the target: moving Q cannot help by chasing."""
    torch.manual_seed(0)
    alignment = Alignment(AlignmentConfig(cf_size=2, text_size=3, joint_size=4))
    with torch.no_grad():
        alignment.text_encoder[0].weight.zero_()
    texts = torch.randn(2, 3, requires_grad=True)
    Stage1Loss(alignment, Stage1Config())(torch.randn(1, 2), torch.randn(2, 2), texts).backward()
    assert texts.grad is not None
    assert not texts.grad.any()


def test_ranking_loss_of_indifference() -> None:
    """A zero logit costs log 2 for the positive and log 2 for the negative."""
    assert ranking_loss(torch.zeros(3, 2), torch.ones(6, 2)).item() == pytest.approx(2 * np.log(2))


@pytest.fixture(scope="module")
def frozen(split: SequenceSplit, backbone: Backbone, encoder_path: str, tmp_path_factory: pytest.TempPathFactory):
    config = make_config(encoder_path, freeze=True)
    run = make_run(tmp_path_factory.mktemp("frozen"), config)
    aligned = train_stage1(split, backbone, config, run)
    assert list(run.metrics) == ["heads", "refit heads"]  # as many steps as beside an encoder that learns
    return aligned


def hit_rate(split: SequenceSplit, backbone: Backbone, vectors: torch.Tensor, unseen: bool) -> float:
    candidates = draw_candidates(split, Holdout.TEST)
    histories = [split.history(int(user), Holdout.TEST) for user in candidates.users]
    scores = candidate_logits(represent_all(backbone, histories), vectors, candidates.items)
    return mean_metrics(scores[split.catalogue.trained[candidates.items[:, 0]] != unseen])["hit@1"]


def test_positions_are_the_last_and_others() -> None:
    """Every sequence of two items has its last position; no more than the limit, none twice, never the first item."""
    sequences = [np.arange(length) for length in (0, 1, 2, 5, 40)]
    assert chosen_positions(sequences, 1) == [(2, 1), (3, 4), (4, 39)]
    chosen = chosen_positions(sequences, 8, seed=1)
    by_sequence = {number: [place for of, place in chosen if of == number] for number in range(5)}
    assert by_sequence[0] == by_sequence[1] == []
    assert by_sequence[2] == [1]
    assert sorted(by_sequence[3]) == [1, 2, 3, 4]
    assert len(set(by_sequence[4])) == 8
    assert by_sequence[4][0] == 39
    assert min(by_sequence[4]) >= 1
    assert chosen != chosen_positions(sequences, 8, seed=2)


def test_examples_are_a_positive_and_what_came_before(
    split: SequenceSplit, backbone: Backbone, encoder_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every x_u is of a prefix that ends before the positive; users who know the whole catalogue have no negative."""
    first, *others = split.train
    everything = np.concatenate([first, np.flatnonzero(split.catalogue.trained)])
    greedy = SequenceSplit(split.user_ids, split.catalogue, [everything, *others], split.validation, split.test)
    config = make_config(encoder_path, positions=3)
    stage = Stage1(greedy, backbone, config, make_run(tmp_path, config))
    assert set(stage.users.tolist()) == set(range(1, 300))
    assert len(stage.users) == 3 * 299
    for user, positive, vector_D in zip(stage.users[:30], stage.positives, stage.representations, strict=False):
        items = split.train[user]
        before = represent_all(backbone, [items[:place] for place in range(1, 5) if items[place] == positive])
        assert torch.isclose(before, vector_D, atol=1e-5).all(dim=1).any()
    monkeypatch.setattr("training.allmrec.stage1.stage.MOST_POSITIONS", 2 * 299)
    assert len(Stage1(greedy, backbone, config, make_run(tmp_path, config)).users) == 2 * 299


def test_texts_that_a_backbone_has_read_are_not_encoded_again(
    split: SequenceSplit, backbone: Backbone, encoder_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hybrid backbone keeps what it made of them; a folder without them is filled."""
    config = make_config(encoder_path, freeze=True)
    hybrid = HybridConfig(
        num_items=len(split.catalogue), text_encoder=encoder_path, max_text_tokens=config.max_text_tokens
    )
    read = item_text_vectors(split.catalogue, hybrid, tmp_path / "backbone")
    monkeypatch.setattr(TextEncoder, "encode", None)
    run = make_run(tmp_path / "run", config)
    assert torch.equal(Stage1(split, backbone, config, run, tmp_path / "backbone").text_vectors, read)
    with pytest.raises(TypeError):
        Stage1(split, backbone, config, run, tmp_path / "elsewhere")


def test_categories_are_read_unless_told_otherwise(backbone: Backbone, encoder_path: str, tmp_path: Path) -> None:
    """A known word as every item's category makes all texts longer."""
    plain = make_split()
    old = plain.catalogue
    named = Catalogue(
        old.item_ids[1:], old.titles[1:], old.descriptions[1:], [("pink",)] * len(old), old.interactions[1:]
    )
    split = SequenceSplit(plain.user_ids, named, plain.train, plain.validation, plain.test)
    configs = [make_config(encoder_path, text_categories=read) for read in (True, False)]
    with_them, without = (Stage1(split, backbone, config, make_run(tmp_path, config)).tokens for config in configs)
    assert all(len(longer) > len(shorter) for longer, shorter in zip(with_them[1:], without[1:], strict=True))


def test_tables_have_their_shapes_and_padding_rows(split: SequenceSplit, frozen) -> None:
    """(N+1, size) each, zeros in row 0."""
    count = len(split.catalogue) + 1
    shapes = {name: tuple(table.shape) for name, table in frozen.tables.items()}
    assert shapes == {
        "text_vectors": (count, 16),
        "joint_item": (count, 24),
        "joint_text": (count, 24),
        "cf_vectors": (count, 12),
        "decoded_item": (count, 12),
        "decoded_text": (count, 12),
    }
    assert not any(table[0].any() for table in frozen.tables.values())


def test_warm_items_keep_their_own_vectors_and_cold_ones_get_their_text(
    split: SequenceSplit, backbone: Backbone, frozen
) -> None:
    """E and e for items seen in training; f_I_dec(q) and q for the others."""
    warm, alignment = split.catalogue.trained, frozen.alignment
    cold = ~warm
    cold[0] = False
    assert (warm.sum(), cold.sum()) == (GROUPS * (GROUP_ITEMS - NEW), GROUPS * NEW)
    assert torch.equal(frozen.placement.cf_vectors[warm], backbone.item_vectors[warm])
    torch.testing.assert_close(frozen.placement.joint_item[warm], alignment.encode_items(backbone.item_vectors[warm]))
    texts = alignment.encode_texts(frozen.text_vectors)
    torch.testing.assert_close(frozen.placement.joint_text[1:], texts[1:])
    torch.testing.assert_close(frozen.placement.joint_item[cold], texts[cold])
    torch.testing.assert_close(frozen.placement.cf_vectors[cold], alignment.decode_items(texts[cold]))
    torch.testing.assert_close(
        frozen.placement.decoded_item[1:], alignment.decode_items(frozen.placement.joint_item[1:])
    )
    torch.testing.assert_close(
        frozen.placement.decoded_text[1:], alignment.decode_items(frozen.placement.joint_text[1:])
    )


def test_decoded_items_score_like_the_backbone(split: SequenceSplit, backbone: Backbone, frozen) -> None:
    """For warm items the way through the joint space keeps the users' logits, up to noise."""
    users = represent_all(backbone, split.train)
    warm = torch.from_numpy(split.catalogue.trained)
    own, decoded = users @ backbone.item_vectors[warm].T, users @ frozen.placement.decoded_item[warm].T
    assert torch.corrcoef(torch.stack([own.flatten(), decoded.flatten()]))[0, 1] > 0.95


def test_unseen_items_are_ranked_by_their_text(split: SequenceSplit, backbone: Backbone, frozen) -> None:
    """The backbone has no idea of them; decoded texts put the right colour first, four times in ten and more."""
    assert hit_rate(split, backbone, backbone.item_vectors, unseen=True) < 0.1
    assert hit_rate(split, backbone, frozen.placement.cf_vectors, unseen=True) > 0.4
    assert hit_rate(split, backbone, frozen.placement.decoded_text, unseen=True) > 0.4


def test_freezing_leaves_the_text_encoder_alone(frozen, encoder_path: str) -> None:
    """The same weights as before, the same vectors."""
    before = TextEncoder(encoder_path).state_dict()
    after = frozen.text_encoder.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert frozen.text_encoder.name == encoder_path


def test_fine_tuning_changes_the_encoder_and_the_tables_follow(
    split: SequenceSplit, backbone: Backbone, encoder_path: str, tmp_path: Path
) -> None:
    """The saved text vectors are those of the saved encoder, and every phase is reported."""
    config = make_config(encoder_path, heads={"max_steps": 20}, learning_rate=1e-3)
    run = make_run(tmp_path / "stage1", config)
    aligned = train_stage1(split, backbone, config, run)
    before = TextEncoder(encoder_path)
    tokens = aligned.text_encoder.tokenize([f"Title: {title}" for title in split.catalogue.titles[1:]])
    torch.testing.assert_close(aligned.text_vectors[1:], aligned.text_encoder.encode(tokens), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(aligned.text_vectors[1:], before.encode(tokens), atol=1e-2)
    metrics = json.loads((run.directory / "metrics.json").read_text())
    assert {name: phase["steps"] for name, phase in metrics.items()} == {
        "heads": 20,
        "text encoder": 20,
        "refit heads": 30,
    }
    steps = [record["step"] for record in json.loads((run.directory / "curve.json").read_text())]
    assert steps == sorted(steps)
    assert steps[-1] == 70
    assert not list(run.directory.glob("*.pt"))


def test_an_interruption_changes_nothing(
    split: SequenceSplit, backbone: Backbone, encoder_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of fine-tuning and called again, stage 1 leaves what it would have left."""
    config = make_config(encoder_path, heads={"max_steps": 5}, loop={"max_steps": 6}, refit={"max_steps": 4})
    straight = train_stage1(split, backbone, config, make_run(tmp_path / "straight", config))
    call = Stage1Loss.__call__
    calls = []

    def interrupting(self: Stage1Loss, *tensors: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return call(self, *tensors)

    monkeypatch.setattr(Stage1Loss, "__call__", interrupting)
    run = make_run(tmp_path / "stopped", config)
    with pytest.raises(Interrupted):
        train_stage1(split, backbone, config, run)
    assert len(calls) == 8
    assert not run.is_done
    resumed = train_stage1(split, backbone, config, run)
    assert len(calls) == 15
    for name, table in resumed.tables.items():
        torch.testing.assert_close(table, straight.tables[name])


def test_a_finished_stage_is_loaded_not_trained(
    split: SequenceSplit, backbone: Backbone, encoder_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call gives the same tables and networks without a single loss."""
    config = make_config(encoder_path, freeze=True, heads={"max_steps": 3})
    first = train_stage1(split, backbone, config, make_run(tmp_path / "run", config))
    monkeypatch.setattr(Stage1Loss, "__call__", None)
    second = train_stage1(split, backbone, config, make_run(tmp_path / "run", config))
    for name, table in first.tables.items():
        assert torch.equal(table, second.tables[name])
    assert functional.mse_loss(
        first.alignment.encode_texts(first.text_vectors), second.alignment.encode_texts(first.text_vectors)
    ).item() == pytest.approx(0.0)


def test_sequences_of_one_item_are_refused(backbone: Backbone, encoder_path: str, tmp_path: Path) -> None:
    """There is nothing before the positive; the error says so."""
    split = make_split(users=3)
    short = SequenceSplit(
        split.user_ids, split.catalogue, [items[:1] for items in split.train], split.validation, split.test
    )
    config = make_config(encoder_path, freeze=True)
    with pytest.raises(DataError, match="no training sequence has two items"):
        train_stage1(short, backbone, config, make_run(tmp_path, config))


def test_a_hybrid_keeps_its_own_vectors_of_unseen_items(
    split: SequenceSplit, encoder_path: str, tmp_path: Path
) -> None:
    """Nothing is decoded in their place, and their joint embeddings are those of their CF vectors."""
    config = BackboneTrainingConfig(
        kind="hybrid",
        settings={"embedding_size": 12, "text_encoder": encoder_path},
        objective=Objective.SOFTMAX,
        loop=LoopConfig(epochs=1),
    )
    backbone = train_backbone(split, config, StageRun(tmp_path / "backbone", config, 0, {}, Console(quiet=True)))
    stage1 = make_config(encoder_path, heads={"max_steps": 2}, freeze=True)
    aligned = train_stage1(split, backbone, stage1, make_run(tmp_path / "run", stage1))
    assert torch.equal(aligned.placement.cf_vectors, backbone.item_vectors)
    joint = aligned.alignment.encode_items(backbone.item_vectors)[1:]
    torch.testing.assert_close(aligned.placement.joint_item[1:], joint)
