"""The training loop: its limits, its schedule, its best weights, and that an interruption changes nothing."""

from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from training.runs import loop
from training.runs.loop import (
    Interrupted,
    LoopConfig,
    Task,
    TrainingError,
    epoch_rng,
    learning_rate_factor,
    seed_everything,
    train,
)

BATCHES = 4


class Regression:
    """A dropout network on seeded data; dropout makes lost random state visible."""

    def __init__(self, stop_at: int | None = None, signal_number: int = signal.SIGINT) -> None:
        seed_everything(3)
        self.inputs = torch.randn(32, 3)
        self.targets = self.inputs @ torch.tensor([1.0, -2.0, 0.5])
        self.module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.05)
        self.seen: list[tuple[int, ...]] = []
        self.rates: list[float] = []
        self.validations: list[float] = []
        self.scores: list[float] = []
        self.stop_at, self.signal_number = stop_at, signal_number

    def batches(self, epoch: int) -> list[list[int]]:
        order = epoch_rng(7, epoch).permutation(32).tolist()
        return [order[start : start + 8] for start in range(0, 32, 8)]

    def loss(self, rows: list[int]) -> torch.Tensor:
        assert self.module.training
        self.seen.append(tuple(rows))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        if self.stop_at == len(self.seen):
            os.kill(os.getpid(), self.signal_number)
        return ((self.module(self.inputs[rows])[:, 0] - self.targets[rows]) ** 2).mean()

    def validate(self) -> dict[str, float]:
        assert not self.module.training
        assert not torch.is_grad_enabled()
        error = ((self.module(self.inputs)[:, 0] - self.targets) ** 2).mean().item()
        self.validations.append(-error)
        return {"score": self.scores.pop(0) if self.scores else -error}

    @property
    def task(self) -> Task[list[int]]:
        return Task(self.module, self.optimizer, self.batches, self.loss, self.validate)

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.module.parameters()])


def config(**fields: object) -> LoopConfig:
    return LoopConfig.model_validate({"monitor": "score", **fields})


def test_an_epoch_is_every_batch_once(tmp_path: Path) -> None:
    """Three epochs of four batches are twelve steps over all rows, in another order each time."""
    run = Regression()
    outcome = train(run.task, config(epochs=3), tmp_path / "c.pt")
    assert (outcome.steps, outcome.epochs, outcome.ended_by) == (12, 3.0, "epochs")
    epochs = [sum(run.seen[start : start + BATCHES], ()) for start in range(0, 12, BATCHES)]
    assert all(sorted(rows) == list(range(32)) for rows in epochs)
    assert len(set(epochs)) == 3


def test_whichever_limit_comes_first_ends_it(tmp_path: Path) -> None:
    """Six steps are fewer than three epochs; no time at all is fewer still."""
    outcome = train(Regression().task, config(epochs=3, max_steps=6), tmp_path / "a.pt")
    assert (outcome.steps, outcome.epochs, outcome.ended_by) == (6, 1.5, "max_steps")
    outcome = train(Regression().task, config(epochs=3, minutes=1e-9), tmp_path / "b.pt")
    assert (outcome.steps, outcome.ended_by) == (0, "minutes")


def test_a_loop_without_an_end_is_refused() -> None:
    """Neither epochs nor steps nor minutes."""
    with pytest.raises(ValidationError, match="never end"):
        LoopConfig()


def test_it_learns(tmp_path: Path) -> None:
    """Validation error falls to a tenth."""
    run = Regression()
    train(run.task, config(epochs=60, validate_first=True), tmp_path / "c.pt")
    assert max(run.validations) > 0.1 * run.validations[0]


def test_validation_comes_as_often_as_asked(tmp_path: Path) -> None:
    """Twice an epoch for two epochs, and once before the first step."""
    run = Regression()
    outcome = train(run.task, config(epochs=2, validate_every=0.5, validate_first=True), tmp_path / "c.pt")
    steps = [record["step"] for record in outcome.curve if "score" in record]
    assert steps == [0, 2, 4, 6, 8]


def test_the_end_is_always_validated(tmp_path: Path) -> None:
    """Even where no validation falls on the last step."""
    outcome = train(Regression().task, config(max_steps=6, validate_every=1), tmp_path / "c.pt")
    assert [record["step"] for record in outcome.curve if "score" in record] == [4, 6]


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    """Validation says 1, 3, 2, 2: the second epoch's weights come back, and patience of two ends it there."""
    reference = Regression()
    reference.scores = [1.0, 3.0]
    train(reference.task, config(epochs=2), tmp_path / "reference.pt")
    run = Regression()
    run.scores = [1.0, 3.0, 2.0, 2.0, 9.0]
    outcome = train(run.task, config(epochs=9, patience=2), tmp_path / "run.pt")
    assert (outcome.best, outcome.best_step, outcome.ended_by) == ({"score": 3.0}, 8, "patience")
    assert outcome.steps == 16
    assert torch.equal(run.weights(), reference.weights())


def test_a_long_epoch_is_looked_into(tmp_path: Path) -> None:
    """By the clock after every step: the best of these is kept, and patience counts the ends of epochs alone."""
    run = Regression()
    run.scores = [1.0, 5.0, 2.0, 3.0, 4.0, 2.0, 2.0, 2.0, 9.0]
    outcome = train(run.task, config(epochs=9, validate_minutes=1e-9, patience=2), tmp_path / "c.pt")
    assert [record["step"] for record in outcome.curve if "score" in record] == list(range(1, 9))
    assert (outcome.best, outcome.best_step, outcome.ended_by) == ({"score": 5.0}, 2, "patience")


def test_a_short_epoch_is_not_looked_into(tmp_path: Path) -> None:
    """Within an hour all four epochs are over, and validated as without that limit."""
    outcome = train(Regression().task, config(epochs=4, validate_every=2, validate_minutes=60), tmp_path / "c.pt")
    assert [record["step"] for record in outcome.curve if "score" in record] == [8, 16]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_an_interruption_changes_nothing(number: int, stop_at: int, tmp_path: Path) -> None:
    """Stopped by a signal within or at the end of an epoch and called again, training ends as if never stopped."""
    settings = config(epochs=3, decay_from=0.2, validate_every=0.5)
    straight = Regression()
    expected = train(straight.task, settings, tmp_path / "straight.pt")

    checkpoint = tmp_path / "c.pt"
    first = Regression(stop_at, number)
    with pytest.raises(Interrupted) as caught:
        train(first.task, settings, checkpoint)
    assert caught.value.code == 128 + number
    assert len(first.seen) == stop_at
    second = Regression()
    outcome = train(second.task, settings, checkpoint)

    assert first.seen + second.seen == straight.seen
    assert torch.equal(second.weights(), straight.weights())
    assert (outcome.best, outcome.best_step) == (expected.best, expected.best_step)
    assert [r["step"] for r in outcome.curve] == [r["step"] for r in expected.curve]


def test_the_signal_handlers_are_put_back(tmp_path: Path) -> None:
    """After training, Ctrl-C means what it meant before."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(Regression().task, config(max_steps=1), tmp_path / "a.pt")
    with pytest.raises(Interrupted):
        train(Regression(stop_at=1).task, config(max_steps=9), tmp_path / "b.pt")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_it_runs_outside_the_main_thread(tmp_path: Path) -> None:
    """Only the main thread can take signals; elsewhere training goes without."""
    outcomes = []
    worker = threading.Thread(
        target=lambda: outcomes.append(train(Regression().task, config(max_steps=2), tmp_path / "c.pt"))
    )
    worker.start()
    worker.join()
    assert outcomes[0].steps == 2


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    """Called once more with its checkpoint, it takes no step and has the same weights."""
    first = Regression()
    train(first.task, config(epochs=2), tmp_path / "c.pt")
    second = Regression()
    outcome = train(second.task, config(epochs=2), tmp_path / "c.pt")
    assert (second.seen, outcome.steps) == ([], 8)
    assert torch.equal(first.weights(), second.weights())


def test_checkpoints_hold_no_code(tmp_path: Path) -> None:
    """The checkpoint loads with nothing but weights allowed, and no partial file is left beside it."""
    train(Regression().task, config(max_steps=3, checkpoint_minutes=0), tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    assert content["state"]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    """Ten steps, a fifth of them warm-up, cosine from the half: by hand from the formula."""
    run = Regression()
    train(run.task, config(max_steps=10, warmup=0.2, decay_from=0.5), tmp_path / "c.pt")
    cosine = [0.5 * (1 + math.cos(math.pi * share)) for share in (0.0, 0.2, 0.4, 0.6, 0.8)]
    assert run.rates == pytest.approx([0.05 * factor for factor in (0.0, 0.5, 1.0, 1.0, 1.0, *cosine)])
    assert learning_rate_factor(1.0, 0.0, 0.5) == pytest.approx(0.0)
    assert learning_rate_factor(1.0, 0.0, 1.0) == 1.0


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """With SGD at rate 1, one step moves the weights exactly by the clipping norm."""
    run = Regression()
    run.optimizer = torch.optim.SGD(run.module.parameters(), lr=1.0)
    before = run.weights()
    train(run.task, config(max_steps=1, clip_norm=0.01), tmp_path / "c.pt")
    assert (run.weights() - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_autocast_computes_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear layers give bfloat16 inside the loss with autocast, float32 without."""
    monkeypatch.setattr("training.runs.loop.has_bfloat16", lambda _: True)
    for autocast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        run = Regression()
        kinds = []
        run.module[0].register_forward_hook(lambda _module, _inputs, output, kinds=kinds: kinds.append(output.dtype))
        train(
            Task(run.module, run.optimizer, run.batches, run.loss),
            config(max_steps=1, autocast=autocast),
            tmp_path / f"{autocast}.pt",
        )
        assert kinds == [expected]


def test_a_loss_that_is_not_finite_ends_training(tmp_path: Path) -> None:
    """The error says at which step and what to do."""
    run = Regression()
    task = Task(run.module, run.optimizer, run.batches, lambda _rows: run.module(run.inputs).sum() * math.inf)
    with pytest.raises(TrainingError, match="at step 0; lower the learning rate"):
        train(task, config(epochs=1), tmp_path / "c.pt")


def test_no_batches_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    """A task without data fails."""
    run = Regression()
    with pytest.raises(TrainingError, match="no batches"):
        train(Task(run.module, run.optimizer, lambda _epoch: [], run.loss), config(epochs=1), tmp_path / "c.pt")


def test_a_missing_monitor_is_named(tmp_path: Path) -> None:
    """A misspelt metric fails at the first validation."""
    with pytest.raises(TrainingError, match=r"loop\.monitor 'ndgc' is not measured here: choose among score"):
        train(Regression().task, config(epochs=1, monitor="ndgc"), tmp_path / "c.pt")


def test_losses_that_are_read_late_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which is asked every few steps: the same curve, and a loss that is no number has its own step."""
    expected = train(Regression().task, config(max_steps=11), tmp_path / "now.pt")
    ready = loop._Loop.__init__

    def elsewhere(self: loop._Loop, *arguments: object) -> None:
        ready(self, *arguments)
        self.device = "cuda"

    monkeypatch.setattr(loop._Loop, "__init__", elsewhere)
    monkeypatch.setattr(loop, "READ_EVERY", 3)
    found = train(Regression().task, config(max_steps=11), tmp_path / "late.pt")
    steps, losses = ([record[key] for record in found.curve if "loss" in record] for key in ("step", "loss"))
    assert steps == [record["step"] for record in expected.curve if "loss" in record]
    assert losses == pytest.approx([record["loss"] for record in expected.curve if "loss" in record])
    broken = Regression()
    broken.targets[:] = math.nan
    with pytest.raises(TrainingError, match="at step 0; lower the learning rate"):
        train(broken.task, config(max_steps=11), tmp_path / "broken.pt")
