"""A shop of thirty items, a text encoder, an LLM that knows nothing, and a recipe that trains on them in moments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from tests.device import DEVICE
from tests.tiny import tiny_llm
from tests.tiny_encoder import write_tiny_encoder
from training.data.dataset import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, DatasetInfo

RECIPE = """
device = "{device}"

[backbone]
settings = {{ embedding_size = 8, max_length = 10, dropout = 0.1 }}
loop = {{ epochs = 2 }}

[stage1]
text_encoder = "{encoder}"
joint_size = 12
heads = {{ max_steps = 5 }}
loop = {{ max_steps = 2 }}
refit = {{ max_steps = 2 }}

[stage2]
llm = "{llm}"
validation_users = 5
loop = {{ max_steps = 2 }}

[stage2.examples]
candidates = 5
batch_tokens = 2000

[stage2.warm_start]
steps = 5

[evaluation]
users = 12
llm_users = 8
resamples = 50

[baselines.every]
loop = {{ max_steps = 2 }}

[baselines.morec]
text_encoder = "{encoder}"
embedding_size = 8
tuning = {{ max_steps = 1 }}

[baselines.ctrl]
text_encoder = "{encoder}"
embedding_size = 8
pretraining = {{ max_steps = 2 }}

[baselines.recformer]
text_encoder = "{encoder}"
hidden_size = 16
pretraining = {{ max_steps = 2 }}
second_step = {{ max_steps = 2 }}
"""


def write_ground(directory: Path) -> Path:
    """Write LLM, encoder and recipe into `directory`; returns the recipe's path."""
    llm = tiny_llm(interface=True)
    llm.model.save_pretrained(directory / "llm")
    llm.tokenizer.save_pretrained(directory / "llm")
    assert llm.interface is not None
    llm.interface.save(directory / "llm")
    encoder = write_tiny_encoder(directory, ["title", *map(str, range(30))])
    path = directory / "recipe.toml"
    path.write_text(RECIPE.format(encoder=encoder, llm=directory / "llm", device=DEVICE))
    return path


def write_shop(directory: Path, name: str = "shop", users: int = 30, items: int = 30, seed: int = 0) -> Path:
    """Write a dataset whose last two items nobody met; returns its folder."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user:02}", f"i{item}", time)
        for user in range(users)
        for time, item in enumerate(rng.permutation(items - 2)[: rng.integers(4, 9)])
    ]
    interactions = pl.DataFrame(rows, schema=dict(INTERACTIONS_SCHEMA), orient="row")
    catalogue = [(f"i{item}", f"Title {item}", "", [("odd", "even")[item % 2]]) for item in range(items)]
    table = pl.DataFrame(catalogue, schema=dict(ITEMS_SCHEMA), orient="row")
    info = DatasetInfo(name=name, domain="movie", format="csv", users=users)
    Dataset(info, interactions, table).save(directory / name)
    return directory / name


COLOURS = ("red", "blue", "green", "black", "white", "pink", "grey", "brown")


def write_colours(directory: Path, users: int = 200, seed: int = 0) -> Path:
    """Write a dataset of users who like one colour of eight, which titles tell. Two items of each are last items only.

    So half of what is to be found in the end was never learned from, and texts alone can find it.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        colour = int(rng.integers(8))
        last = f"i{8 * colour + 6 + rng.integers(2)}" if user % 2 else f"i{8 * colour + rng.integers(6)}"
        met = [*(f"i{8 * colour + number}" for number in rng.integers(6, size=6)), last]
        rows += [(f"u{user:03}", item, time) for time, item in enumerate(met)]
    interactions = pl.DataFrame(rows, schema=dict(INTERACTIONS_SCHEMA), orient="row")
    names = [(f"i{item}", f"{COLOURS[item // 8]} {item % 8}", "", ["thing"]) for item in range(64)]
    info = DatasetInfo(name="colours", domain="item", format="csv", users=users)
    items = pl.DataFrame(names, schema=dict(ITEMS_SCHEMA), orient="row")
    Dataset(info, interactions, items).save(directory / "colours")
    return directory / "colours"
