"""Run directories: what is recorded, and when a stage need not run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.config import Config
from training.runs.context import CHECKPOINT_FILE
from training.runs.stage_run import StageRun, git_revision


class Settings(Config):
    size: int = 3


def stage(directory: Path, size: int = 3, seed: int = 0, data: str = "abc") -> StageRun:
    return StageRun(directory / "stage", Settings(size=size), seed, {"dataset": data})


def finished(directory: Path) -> StageRun:
    run = stage(directory)
    run.start()
    (run.directory / "sub").mkdir(exist_ok=True)
    (run.directory / "sub" / "weights.bin").write_bytes(b"weights")
    run.finish({"hit@1": 0.5})
    return run


def test_a_stage_is_done_once_it_finished(tmp_path: Path) -> None:
    """Not before it starts, not while it runs; then yes, for a fresh look at the same folder too."""
    run = stage(tmp_path)
    assert not run.is_done
    run.start()
    assert not run.is_done
    run.finish({})
    assert run.is_done
    assert stage(tmp_path).is_done


@pytest.mark.parametrize("other", [{"size": 4}, {"seed": 1}, {"data": "abd"}])
def test_another_config_seed_or_input_is_another_result(other: dict[str, object], tmp_path: Path) -> None:
    """What was made from something else is not done."""
    finished(tmp_path)
    assert not stage(tmp_path, **other).is_done


@pytest.mark.parametrize("damage", ["changed", "deleted", "cut"])
def test_damaged_results_are_not_done(damage: str, tmp_path: Path) -> None:
    """A changed or lost file, or a marker cut short, makes the stage run again."""
    run = finished(tmp_path)
    weights, done = run.directory / "sub" / "weights.bin", run.directory / "done"
    match damage:
        case "changed":
            weights.write_bytes(b"Weights")
        case "deleted":
            weights.unlink()
        case "cut":
            done.write_text(done.read_text()[:-20])
    assert not run.is_done


def test_starting_again_takes_the_marker_back(tmp_path: Path) -> None:
    """While a stage runs anew, its old result does not count."""
    finished(tmp_path).start()
    assert not stage(tmp_path).is_done


def test_a_checkpoint_is_gone_on_from_only_with_the_same_config(tmp_path: Path) -> None:
    """The same config keeps it, another config discards it, the end removes it."""
    run = stage(tmp_path)
    checkpoint = run.directory / CHECKPOINT_FILE
    run.start()
    checkpoint.write_bytes(b"half")
    stage(tmp_path).start()
    assert checkpoint.exists()
    stage(tmp_path, size=4).start()
    assert not checkpoint.exists()
    checkpoint.write_bytes(b"half")
    run.finish({})
    assert not checkpoint.exists()


def test_everything_is_recorded(tmp_path: Path) -> None:
    """The full config with its defaults, inputs, seed, revision, versions and metrics are there to read."""
    run = finished(tmp_path)
    recorded = json.loads((run.directory / "config.json").read_text())
    assert recorded["config"] == {"size": 3}
    assert recorded["inputs"] == {"dataset": "abc"}
    environment = json.loads((run.directory / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["git_revision"] == git_revision()
    assert environment["versions"]["torch"]
    assert json.loads((run.directory / "metrics.json").read_text()) == {"hit@1": 0.5}


def test_output_changes_with_the_result(tmp_path: Path) -> None:
    """Later stages see whether what they build on is still the same."""
    run = finished(tmp_path)
    first = run.output
    assert finished(tmp_path).output == first
    run.start()
    (run.directory / "sub" / "weights.bin").write_bytes(b"better")
    run.finish({})
    assert run.output != first


def test_curves_are_plotted(tmp_path: Path) -> None:
    """JSON and a PNG, with and without validation."""
    run = stage(tmp_path)
    run.start()
    losses = [{"step": 1, "epoch": 1.0, "minutes": 0.1, "loss": 2.0}]
    for curve in (losses, [*losses, {"step": 1, "epoch": 1.0, "minutes": 0.1, "mrr": 0.3}], []):
        run.write_curve(curve, "stage")
        assert json.loads((run.directory / "curve.json").read_text()) == curve
        assert (run.directory / "curve.png").read_bytes().startswith(b"\x89PNG")
