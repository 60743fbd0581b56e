"""A chain of three stages that train nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from models.rankers.of_model import CHOICES, TITLES
from training.allmrec.blend.config import BlendConfig
from training.allmrec.chain import Chain, Fingerprints, Making, optional_stage, stage
from training.allmrec.recipe import Recipe
from training.allmrec.stage1.config import Stage1Config
from training.backbones.config import BackboneTrainingConfig
from training.runs.stage_run import StageRun

CHOOSING = Recipe(blend=BlendConfig(ways=(CHOICES,)))
LEFT = f"vectors by {CHOOSING.backbone.kind}, aligned in {CHOOSING.stage1.joint_size}, weighed for {CHOICES}"
READING = Recipe(blend=BlendConfig(ways=(TITLES,)))


def finish(run: StageRun, left: str) -> str:
    """What a stage leaves, made by it now or before."""
    if not run.is_done:
        run.start()
        run.finish({"left": left})
    return str(run.metrics["left"])


class Three(Chain):
    """The last rests on both others; the second is wanted by some, and those after it rest on the first otherwise."""

    afterwards = ("evaluation",)

    @stage("backbone", rests_on=("data",), files=lambda config: {"file": config.kind})
    def vectors(self, config: BackboneTrainingConfig, run: StageRun) -> Making[str]:
        """The first."""
        return lambda: finish(run, f"vectors by {config.kind}")

    @optional_stage(
        "stage1",
        rests_on=("backbone",),
        wanted=lambda recipe: CHOICES in recipe.blend.ways,
        instead=("backbone", "data"),
        skipped="nobody asks",
    )
    def aligned(self, config: Stage1Config, run: StageRun) -> Making[str]:
        """The second."""
        self.say("getting ready")
        return lambda: finish(run, f"{self.vectors}, aligned in {config.joint_size}")

    @stage("blend", rests_on=("stage1",))
    def weighed(self, config: BlendConfig, run: StageRun) -> Making[str]:
        """The third."""
        return lambda: finish(run, f"{self.aligned}, weighed for {config.ways[0]}")

    def given(self, name: str) -> Fingerprints:
        """The data alone."""
        return {name: "a shop"} if name == "data" else super().given(name)


def chain(directory: Path, recipe: Recipe = CHOOSING) -> tuple[Three, io.StringIO]:
    """One with what it says."""
    said = io.StringIO()
    return Three(recipe, directory, Console(file=said, width=200)), said


def inputs_of(directory: Path, name: str) -> dict[str, str]:
    """What a stage is recorded to rest on."""
    inputs: dict[str, str] = json.loads((directory / name / "config.json").read_text())["inputs"]
    return inputs


def test_who_asks_for_the_last_gets_all_before_it_once(tmp_path: Path) -> None:
    """In order, announced by number; what an entry gets ready is said before its stage is."""
    three, said = chain(tmp_path)
    assert three.weighed == LEFT
    lines = [line.split(" took ")[0] for line in said.getvalue().splitlines()]
    first, second, third = (["[1/4] backbone", "backbone"], ["[2/4] stage1", "stage1"], ["[3/4] blend", "blend"])
    assert lines == [*first, "getting ready", *second, *third]
    assert three.weighed == LEFT
    assert len(said.getvalue().splitlines()) == 7
    again, said = chain(tmp_path)
    assert again.weighed == LEFT
    assert said.getvalue().count("done before, unchanged") == 3


def test_a_stage_is_known_by_what_it_rests_on(tmp_path: Path) -> None:
    """By the fingerprints of that and of its files."""
    three, _ = chain(tmp_path)
    _ = three.weighed
    assert inputs_of(tmp_path, "backbone") == {"data": "a shop", "file": CHOOSING.backbone.kind}
    assert inputs_of(tmp_path, "stage1") == {"backbone": three.run("backbone").output}
    assert inputs_of(tmp_path, "blend") == {"stage1": three.run("stage1").output}


def test_a_changed_section_makes_its_stage_and_those_after_it_again(tmp_path: Path) -> None:
    _ = chain(tmp_path)[0].weighed
    three, said = chain(tmp_path, CHOOSING.model_copy(update={"stage1": Stage1Config(joint_size=7)}))
    _ = three.weighed
    assert [line for line in said.getvalue().splitlines() if "done before" in line] == [
        "[1/4] backbone: done before, unchanged"
    ]


def test_what_is_not_wanted_is_none_and_says_so(tmp_path: Path) -> None:
    """It has a number and no folder, and those after it rest on what stands in its place."""
    three, said = chain(tmp_path, READING)
    assert three.weighed == f"None, weighed for {TITLES}"
    assert "stage1: skipped, nobody asks" in said.getvalue().splitlines()
    assert "[3/4] blend" in said.getvalue().splitlines()
    assert not (tmp_path / "stage1").exists()
    assert inputs_of(tmp_path, "blend") == {"backbone": three.run("backbone").output, "data": "a shop"}
    assert three.wanted == ["backbone", "blend"]


def test_nothing_rests_on_what_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="weather"):
        chain(tmp_path)[0].fingerprints(("weather",))
