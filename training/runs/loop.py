"""The one training loop: every stage is a `Task` that this loop drives.

It ends by epochs, steps, minutes or patience; validates, keeps the best weights, and saves all that is needed to go
on after Ctrl-C or a lost machine. A resumed run sees the same batches and the same random numbers as one that was
never interrupted.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from rich.console import Console
from torch import nn

from models.config import Config
from models.errors import ServerError
from models.files import written_atomically
from models.precision import has_bfloat16
from training.runs.display import Display
from training.runs.distributed import processes
from training.runs.interrupts import Interrupts

Batch = TypeVar("Batch")
READ_EVERY = 20
"""Steps between readings of the loss on a GPU, which works on while it is not asked. A CPU is asked every step."""
Record = dict[str, float]


class TrainingError(ServerError):
    """Training broke down, such as by a loss that is not a number. Raised by `train`."""


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM ended training after everything was saved. Leaves the process with 128 + the signal."""


class LoopConfig(Config):
    """When a loop ends, validates and saves. It ends at whichever limit comes first.

    Attributes:
        epochs: passes over the data.
        max_steps: optimizer steps.
        minutes: wall-clock minutes, validation included, summed over resumed parts.
        validate_every: epochs between validations; fractions validate within an epoch.
        validate_minutes: also validate wherever so many minutes have gone by without it, so that a long epoch is
            looked into; that finds better weights, and does not count against `patience`.
        validate_first: also validate before the first step, so that the start can turn out best.
        monitor: the validation metric, higher is better, by which the best weights are kept.
        patience: end after this many validations in a row without a better one; never if not given.
        warmup: share of the run over which the learning rate rises from zero.
        decay_from: share of the run from which it falls to zero along a cosine; 1 keeps it constant.
        clip_norm: gradients are scaled down to this norm.
        autocast: compute the loss in bfloat16 where torch deems it safe, on hardware where that is faster.
        checkpoint_minutes: minutes between checkpoints.
    """

    epochs: float | None = Field(None, gt=0)
    max_steps: int | None = Field(None, gt=0)
    minutes: float | None = Field(None, gt=0)
    validate_every: float = Field(1.0, gt=0)
    validate_minutes: float | None = Field(None, gt=0)
    validate_first: bool = False
    monitor: str = "ndcg@10"
    patience: int | None = Field(None, gt=0)
    warmup: float = Field(0.0, ge=0, lt=1)
    decay_from: float = Field(1.0, ge=0, le=1)
    clip_norm: float | None = Field(None, gt=0)
    autocast: bool = False
    checkpoint_minutes: float = Field(2.0, ge=0)

    @model_validator(mode="after")
    def _ends(self) -> LoopConfig:
        if self.epochs is None and self.max_steps is None and self.minutes is None:
            raise ValueError("give epochs, max_steps or minutes, or training would never end")
        return self


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What is trained, on what.

    Attributes:
        module: all weights to save and restore; leave frozen models out.
        optimizer: over the module's parameters; its learning rates are scaled by the schedule.
        batches: the batches of an epoch (0, 1, ...), the same at every call: a list of row numbers, say. `loss`
            makes tensors of one when its turn comes, so that skipping to where a run was interrupted is free.
        loss: a batch to its scalar loss.
        validate: metrics of the module as it is; called in eval mode without gradients.
        part: of a batch what process `index` of `count` computes (None for nothing), and its share of the loss: the
            shares' sum is 1, and the parts' losses times their shares add up to the loss of the batch.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Callable[[int], Sequence[Batch]]
    loss: Callable[[Batch], torch.Tensor]
    validate: Callable[[], dict[str, float]] | None = None
    part: Callable[[Batch, int, int], tuple[Batch | None, float]] | None = None


@dataclass
class Outcome:
    """How training went.

    Attributes:
        steps: optimizer steps taken.
        epochs: passes over the data, the last possibly partial.
        minutes: wall-clock minutes.
        ended_by: "epochs", "max_steps", "minutes" or "patience".
        best: metrics of the weights that were kept; empty without validation.
        best_step: the step they are from.
        curve: records of `step`, `epoch`, `minutes`, `loss` or validation metrics, in order.
    """

    steps: int = 0
    epochs: float = 0.0
    minutes: float = 0.0
    ended_by: str = ""
    best: Record = field(default_factory=dict)
    best_step: int = 0
    curve: list[Record] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, Any]:
        """All but the curve, for `metrics.json`."""
        return {
            "validation": self.best,
            "best_step": self.best_step,
            "steps": self.steps,
            "epochs": self.epochs,
            "minutes": self.minutes,
            "ended_by": self.ended_by,
        }

    @property
    def end(self) -> Record:
        """Where the run ended, as the curve's records say it."""
        return {"step": self.steps, "epoch": self.epochs, "minutes": self.minutes}


@dataclass
class _State:
    epoch: int = 0
    position: int = 0
    step: int = 0
    seconds: float = 0.0
    validated: float = 0.0
    counted: float = 0.0
    looked: float = 0.0
    unimproved: int = 0
    losses: list[float] = field(default_factory=list)
    logged: float = 0.0
    best: Record = field(default_factory=dict)
    best_step: int = 0
    curve: list[Record] = field(default_factory=list)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Each stage calls this once, before it builds anything."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def epoch_rng(seed: int, epoch: int) -> np.random.Generator:
    """The generator from which `Task.batches` draws everything random about an epoch."""
    return np.random.default_rng([seed, epoch])


def learning_rate_factor(progress: float, warmup: float, decay_from: float) -> float:
    """The learning rate's factor at `progress` in [0, 1]: linear warm-up, plateau, cosine to zero."""
    if progress < warmup:
        return progress / warmup
    if progress <= decay_from or decay_from >= 1.0:
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - decay_from) / (1.0 - decay_from))))


def train(
    task: Task[Batch],
    config: LoopConfig,
    checkpoint: Path,
    label: str = "training",
    console: Console | None = None,
) -> Outcome:
    """Run `task` to its end and leave the best weights in its module (the last without validation).

    Args:
        task: what to train.
        config: when to end, validate and save.
        checkpoint: file to save to, and to go on from if it exists. The caller removes it when the stage is done.
        label: stands before the progress bar.
        console: where progress is shown.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; everything is saved, the same call goes on from there.
        TrainingError: the loss is not finite, the monitored metric is missing, or there are several processes and
            batches of the task have no parts.
    """
    shown = (console or Console(stderr=True)) if processes().is_first else Console(quiet=True)
    with Display(shown, label) as display, Interrupts() as signals:
        return _Loop(task, config, checkpoint, display, signals).run()


class _Loop(Generic[Batch]):
    def __init__(
        self, task: Task[Batch], config: LoopConfig, checkpoint: Path, display: Display, signals: Interrupts
    ) -> None:
        self.task, self.config, self.checkpoint = task, config, checkpoint
        self.display, self.signals = display, signals
        self.state = _State()
        self.processes = processes()
        self.received = 0
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.unread: list[tuple[int, torch.Tensor]] = []
        self.batches: Sequence[Batch] = []
        self.device = next(task.module.parameters()).device.type
        self.autocast = config.autocast and has_bfloat16(self.device)
        for group in task.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def run(self) -> Outcome:
        state = self.state
        if self.processes.count > 1:
            # Processes start with the same weights and go on with other dropout.
            torch.manual_seed(torch.initial_seed() + self.processes.index)
        if self.checkpoint.is_file():
            self._restore()
            self.display.line(f"resumed at step {state.step}")
        self._look_at_clock()
        self.started = self.saved = self.now
        self.seconds_before = state.seconds
        self.batches = self.task.batches(state.epoch)
        if self.config.validate_first and state.step == 0:
            self._validate()
        self._look_at_clock()
        while (ended_by := self._ended()) is None:
            self._advance()
            self._step(self.batches[state.position])
            state.position += 1
            self._look_at_clock()
            self._log()
            if self._epochs() - state.counted >= self.config.validate_every - 1e-9:
                self._validate()
            elif self._seconds() - state.looked >= 60 * (self.config.validate_minutes or math.inf):
                self._validate(counted=False)
            if self.received:
                self._save()
                self._leave_if_interrupted()
            if self.now - self.saved > 60 * self.config.checkpoint_minutes:
                self._save()
        if self.task.validate and state.validated < self._epochs():
            self._validate()
        self._save()
        if self.best_weights is not None:
            self.task.module.load_state_dict(self.best_weights)
        self.task.module.eval()
        self._leave_if_interrupted()
        return Outcome(
            steps=state.step,
            epochs=self._epochs(),
            minutes=self._seconds() / 60,
            ended_by=ended_by,
            best=state.best,
            best_step=state.best_step,
            curve=state.curve,
        )

    def _leave_if_interrupted(self) -> None:
        if self.received:
            self.display.line(f"interrupted; saved at step {self.state.step}. The same command goes on from here.")
            raise Interrupted(128 + self.received)

    def _look_at_clock(self) -> None:
        """Take up the time, and whether a signal arrived: those of the first process, for all to decide alike."""
        seen = torch.tensor([time.monotonic(), float(self.signals.received)], dtype=torch.float64)
        self.now, received = self.processes.sum(seen * self.processes.is_first).tolist()
        self.received = int(received)

    def _advance(self) -> None:
        """Go to the next epoch where one has ended."""
        if self.state.position < len(self.batches):
            return
        self.state.epoch += 1
        self.state.position = 0
        self.batches = self.task.batches(self.state.epoch)
        if not len(self.batches):
            raise TrainingError(f"{self.display.label}: epoch {self.state.epoch} has no batches; is there any data?")

    def _step(self, batch: Batch) -> None:
        factor = learning_rate_factor(self._progress(), self.config.warmup, self.config.decay_from)
        for group in self.task.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.task.module.train()
        loss = self._loss(batch)
        self.unread.append((self.state.step, torch.zeros((), device=self.device) if loss is None else loss.detach()))
        if self.device == "cpu" or len(self.unread) >= READ_EVERY:
            self._read_losses()
        self.task.optimizer.zero_grad(set_to_none=True)
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
        self.processes.sum_gradients(self.task.module.parameters())
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.task.module.parameters(), self.config.clip_norm)
        self.task.optimizer.step()
        self.state.step += 1

    def _loss(self, batch: Batch) -> torch.Tensor | None:
        """What this process has of the loss of `batch`; None where it has no part in it."""
        part: Batch | None = batch
        share = 1.0
        if self.processes.count > 1:
            if self.task.part is None:
                raise TrainingError(f"{self.display.label}: it cannot be trained by several processes: start one")
            part, share = self.task.part(batch, self.processes.index, self.processes.count)
        if part is None:
            return None
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.autocast):
            loss = self.task.loss(part)
        return loss if share == 1.0 else loss * share

    def _read_losses(self) -> None:
        """Bring the losses of the last steps over from the device, which waits for it."""
        unread, self.unread = self.unread, []
        values = self.processes.sum(torch.stack([loss for _, loss in unread])).tolist() if unread else []
        for (step, _), value in zip(unread, values, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.display.label}: the loss is {value} at step {step};"
                    " lower the learning rate or set clip_norm"
                )
        self.state.losses += values

    def _validate(self, counted: bool = True) -> None:
        """Validate and keep the best weights; count for `patience`, and until the next by `validate_every`, or not."""
        state, validate = self.state, self.task.validate
        if validate is None:
            return
        self._read_losses()
        self.task.module.eval()
        with torch.no_grad():
            metrics = self.processes.alone(validate)
        self._look_at_clock()
        if self.config.monitor not in metrics:
            raise TrainingError(
                f"loop.monitor '{self.config.monitor}' is not measured here: choose among {', '.join(sorted(metrics))}"
            )
        state.validated, state.looked = self._epochs(), self._seconds()
        if counted:
            state.counted = state.validated
        state.curve.append({**self._where(), **metrics})
        if not state.best or metrics[self.config.monitor] > state.best[self.config.monitor]:
            state.best, state.best_step, state.unimproved = metrics, state.step, 0
            weights = self.task.module.state_dict()
            self.best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
        elif counted:
            state.unimproved += 1
        self.display.validated(self._epochs(), metrics[self.config.monitor], state.best[self.config.monitor])

    def _log(self) -> None:
        """Show progress, and put about a hundred mean losses on the curve."""
        state, progress = self.state, self._progress()
        due = progress - state.logged >= 0.01 or progress >= 1.0
        if due:
            self._read_losses()
        self.display.progress(progress, state.losses[-1] if state.losses else math.nan)
        if due:
            state.curve.append({**self._where(), "loss": sum(state.losses) / len(state.losses)})
            state.losses, state.logged = state.losses[-1:], progress

    def _where(self) -> Record:
        return {"step": self.state.step, "epoch": self._epochs(), "minutes": self._seconds() / 60}

    def _seconds(self) -> float:
        return self.seconds_before + self.now - self.started

    def _epochs(self) -> float:
        return self.state.epoch + self.state.position / max(1, len(self.batches))

    def _shares(self) -> dict[str, float]:
        """By limit, how much of it is used up."""
        config = self.config
        used = {"epochs": self._epochs(), "max_steps": self.state.step, "minutes": self._seconds() / 60}
        limits = {"epochs": config.epochs, "max_steps": config.max_steps, "minutes": config.minutes}
        return {name: used[name] / limit for name, limit in limits.items() if limit is not None}

    def _progress(self) -> float:
        return min(1.0, max(self._shares().values()))

    def _ended(self) -> str | None:
        if self.config.patience is not None and self.state.unimproved >= self.config.patience:
            return "patience"
        return next((name for name, share in self._shares().items() if share >= 1.0 - 1e-9), None)

    def _save(self) -> None:
        self._read_losses()
        self.state.seconds = self._seconds()
        first, *others = self.processes.gather(torch.get_rng_state())
        content = {
            "state": asdict(self.state),
            "weights": self.task.module.state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.task.optimizer.state_dict(),
            "random": first,
            "others_random": others,
            "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        self.processes.alone(lambda: self._write(content))
        self.saved = self.now

    def _write(self, content: dict[str, Any]) -> None:
        with written_atomically(self.checkpoint) as partial:
            torch.save(content, partial)

    def _restore(self) -> None:
        content: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        vars(self.state).update(content["state"])
        self.task.module.load_state_dict(content["weights"])
        self.best_weights = content["best_weights"]
        self.task.optimizer.load_state_dict(content["optimizer"])
        states = [content["random"], *content.get("others_random", ())]
        if self.processes.index < len(states):
            torch.set_rng_state(states[self.processes.index])
        if content["cuda_random"]:
            torch.cuda.set_rng_state_all(content["cuda_random"])
