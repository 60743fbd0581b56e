"""One tiny shop on which every system is fitted once."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.training.ground import write_ground, write_shop
from training.allmrec.recipe import load_recipe
from training.baselines.bench import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A dataset of thirty items and a recipe of few steps."""
    directory = tmp_path_factory.mktemp("bench")
    recipe = load_recipe(str(write_ground(directory)))
    return Bench(write_shop(directory), recipe, directory / "home", Console(quiet=True))


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another dataset, of other items and users."""
    return write_shop(tmp_path_factory.mktemp("elsewhere"), "other", users=20, items=40, seed=1)
