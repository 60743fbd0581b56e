"""Several processes are one: same losses, same weights, and only the first of them writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.backbones import load_backbone, represent_all
from tests.tiny import tiny_split
from tests.training.runs.trained_together import main
from training.runs.distributed import Processes, processes
from training.runs.loop import LoopConfig, Task, TrainingError, train

LLM2REC = tuple(f"llm2rec/stages/{stage}" for stage in ("csft", "csft-mntp", "csft-mntp-contrastive"))
STAGES = ("bce", "sampled_softmax", "softmax", "stage1", "stage2", "title_tokens", "pretrain", "tuned", *LLM2REC)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """All stages that train, by two processes and by one, in float32 and without dropout."""
    made = {count: tmp_path_factory.mktemp(f"by{count}") for count in (1, 2)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    command = [sys.executable, "-m", *launch, "-m", "tests.training.runs.trained_together", str(made[2])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    started = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    threads = torch.get_num_threads()
    main(made[1])
    torch.set_num_threads(threads)
    _, errors = started.communicate(timeout=200)
    assert started.returncode == 0, errors
    assert (made[2] / "processes").read_text() == "2"
    return made


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_have_the_loss_curve_of_one(stage: str, folders: dict[int, Path]) -> None:
    """And its validation figures: batches, negatives and the first weights are the same, and gradients add up."""
    curves = [json.loads((folders[count] / stage / "curve.json").read_text()) for count in (1, 2)]
    assert len(curves[0]) == len(curves[1]) > 2
    for alone, together in zip(*curves, strict=True):
        assert {name: value for name, value in together.items() if name != "minutes"} == pytest.approx(
            {name: value for name, value in alone.items() if name != "minutes"}, rel=2e-4, abs=1e-6
        )
    assert len({record["loss"] for record in curves[0] if "loss" in record}) > 1


def test_two_processes_end_with_the_backbone_of_one(folders: dict[int, Path]) -> None:
    """It says the same. Biases of keys differ: attention does not heed them, so their gradients are rounding alone."""
    alone, together = (load_backbone(folders[count] / "bce") for count in (1, 2))
    torch.testing.assert_close(together.item_vectors, alone.item_vectors, atol=1e-4, rtol=1e-3)
    histories = tiny_split().train
    torch.testing.assert_close(
        represent_all(together, histories), represent_all(alone, histories), atol=1e-3, rtol=1e-3
    )


def test_one_process_needs_nobody() -> None:
    """Nothing is launched here: it is the first of one, sums are its own, and work is done at once."""
    one = processes()
    assert (one.count, one.index, one.is_first) == (1, 0, True)
    assert one.sum(torch.tensor([3.0])).tolist() == [3.0]
    assert one.gather("x") == ["x"]
    assert one.alone(lambda: 7) == 7
    one.go_on_alone()


class Pair(Processes):
    """The first or second of two, of which the other has nothing."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.count, self.index = 2, index

    def gather(self, value: object) -> list[object]:
        return [value, None]


def test_what_fails_in_the_first_is_raised_there() -> None:
    """The others are told and end."""

    def fails() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Pair(0).alone(fails)
    with pytest.raises(SystemExit):
        Pair(1).alone(lambda: None)
    with pytest.raises(SystemExit):
        Pair(1).go_on_alone()


def test_alone_is_alone_within() -> None:
    """The first asks nobody while the others wait, and is one of two again afterwards."""
    first = Pair(0)
    assert first.alone(lambda: (first.count, first.alone(lambda: 5))) == (1, 5)
    assert first.count == 2


def test_a_task_without_parts_is_not_for_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would do everything twice."""
    monkeypatch.setattr("training.runs.loop.processes", lambda: Pair(0))
    layer = torch.nn.Linear(1, 1)
    task = Task(layer, torch.optim.SGD(layer.parameters(), 0.1), lambda _: [1.0], lambda _: layer.weight.sum())
    with pytest.raises(TrainingError, match="cannot be trained by several processes"):
        train(task, LoopConfig(max_steps=1), tmp_path / "checkpoint.pt")
