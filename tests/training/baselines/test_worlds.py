"""A world where only titles tell what was never learned from: whoever reads texts finds it, whoever does not cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.rankers.base import Audience
from tests.models.rankers.suite import scored
from tests.tiny import save_tiny_llm
from tests.tiny_encoder import write_tiny_encoder
from tests.training.ground import COLOURS, write_colours
from training.allmrec.recipe import load_recipe
from training.baselines.bench import Bench
from training.baselines.ctrl import ctrl
from training.baselines.morec import morec
from training.baselines.port import Shop
from training.baselines.recformer import recformer
from training.baselines.tallrec import tallrec
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics

RECIPE = """
[baselines.morec]
text_encoder = "{encoder}"
embedding_size = 16
learning_rate = 1e-2
encoder_learning_rate = 1e-3
loop = {{ max_steps = 60, epochs = 60, validate_every = 10 }}
tuning = {{ max_steps = 10, validate_first = true }}

[baselines.ctrl]
text_encoder = "{encoder}"
embedding_size = 16
learning_rate = 1e-2
pretraining = {{ max_steps = 20 }}
loop = {{ max_steps = 80, epochs = 80, validate_every = 20 }}

[baselines.recformer]
text_encoder = "{encoder}"
hidden_size = 16
layers = 1
attention_window = 8
item_tokens = 6
history_items = 5
learning_rate = 3e-3
pretraining = {{ max_steps = 80 }}
loop = {{ max_steps = 90, epochs = 30, validate_every = 10 }}
second_step = {{ max_steps = 30, epochs = 10, validate_every = 5 }}

[stage2]
llm = "{llm}"

[baselines.tallrec]
rank = 32
alpha = 64
dropout = 0
modules = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
learning_rate = 3e-3
loop = {{ max_steps = 300, epochs = 300, decay_from = 0.5, clip_norm = 1.0 }}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    directory = tmp_path_factory.mktemp("world")
    encoder = write_tiny_encoder(directory, ["title", ":", *COLOURS, *map(str, range(8))])
    llm = save_tiny_llm(directory / "llm")
    (directory / "recipe.toml").write_text(RECIPE.format(encoder=encoder, llm=llm))
    recipe = load_recipe(str(directory / "recipe.toml"))
    return Bench(write_colours(directory), recipe, directory / "home", Console(quiet=True))


def hits(bench: Bench, ranker: object) -> tuple[float, float]:
    """Hit@1 of what was learned from, and of what was not."""
    held_out = HeldOut.of(bench.split, Holdout.TEST)
    scores = scored(ranker, held_out.users, held_out.candidates.items)
    unseen = held_out.groups["unseen"]
    assert 30 < unseen.sum() < len(held_out) - 30
    return mean_metrics(scores[~unseen])["hit@1"], mean_metrics(scores[unseen])["hit@1"]


@pytest.mark.parametrize("system", [morec, recformer])
def test_who_reads_texts_finds_what_nobody_met(world: Bench, system) -> None:
    """Chance has .05. Two or three of 20 candidates have the user's colour: who tells it is right far more often."""
    _, unknown = hits(world, system(world)(Shop(world.split.catalogue, world.prompt)))
    assert unknown > 0.2


def test_who_is_only_initialised_by_texts_does_not(world: Bench) -> None:
    """CTRL's items without interactions have vectors that nothing taught: no better than chance, or little."""
    known, unknown = hits(world, ctrl(world)(Shop(world.split.catalogue, world.prompt)))
    assert known > 0.25
    assert unknown < 0.15


def test_an_llm_tuned_to_say_yes_or_no_learns_what_is_liked(world: Bench) -> None:
    """Of what it was tuned with: the item that a user took next is told from one of another colour that others took.

    A random LLM of two layers learns by heart, and its places with it: prompts are as long as those it learned from.
    """
    split = world.split
    ranker = tallrec(world)(Shop(split.catalogue, world.prompt))
    users = range(120)
    histories = [split.train[user][:-1] for user in users]
    liked = np.asarray([split.train[user][-1] for user in users])
    others = np.roll(liked, 1)
    told = split_colour(liked) != split_colour(others)
    scores = scored(ranker, Audience([""] * len(users), histories), np.column_stack([liked, others]))[told]
    assert told.sum() > 80
    assert (scores[:, 0] > scores[:, 1]).mean() > 0.65


def split_colour(items: np.ndarray) -> np.ndarray:
    """Of item numbers, which begin with 1 and have eight of each colour."""
    return (items - 1) // 8


def test_mlp_llm_starts_without_texts(bench: Bench) -> None:
    """Neither the likeness of texts nor series weigh anything in its warm start; in A-LLMRec's both were fitted."""
    from training.baselines.mlp_llm import trained

    model = trained(bench)
    (path,) = (Path(bench.directory) / "mlp_llm").glob("*/metrics.json")
    start = json.loads(path.read_text())["start"]
    assert (start["similarity_weight"], start["series_weight"]) == (0.0, 0.0)
    np.testing.assert_array_equal(model.joint_item.numpy(), bench.backbone.item_vectors.detach().numpy())
