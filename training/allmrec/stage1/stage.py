"""Stage 1: align items with their text (A-LLMRec section 4.1).

`L = L_matching + alpha L_item_recon + beta L_text_recon + L_rec`, on the last and other positions of every training
sequence.
The heads are trained first, on texts encoded once: that takes seconds. Then, unless frozen, the text encoder is
fine-tuned with them, which is what costs time, and last the heads are fitted to the texts as they are encoded now.

Axes: B positions of a batch, 2B their positive and negative items, D CF size, J joint size, Q text size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.placement import Placement, place
from models.alignment.text_encoder import TextEncoder, catalogue_texts
from models.backbones import Backbone, represent_all
from models.errors import DataError
from models.rankers.collaborative import candidate_logits
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage1.config import Stage1Config
from training.allmrec.stage1.loss import Stage1Loss
from training.backbones.texts import sentence_vectors
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.metrics import mean_metrics
from training.runs.loop import LoopConfig, Outcome, Record, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun

MOST_POSITIONS = 400_000
"""Of all sequences together, though each has one at least: about as many as the heads meet by default."""


def train_stage1(
    split: SequenceSplit, backbone: Backbone, config: Stage1Config, run: StageRun, kept: Path | None = None
) -> Aligned:
    """Run the stage, or load its result if it is done.

    Args:
        split: the data.
        backbone: trained, frozen.
        config: the stage's config, of which `run` was made.
        run: the stage's directory.
        kept: where text vectors are kept, so that those of a frozen encoder are made once; the stage's directory if not
            given.

    Raises:
        DataError: no training sequence has two items.
        ConfigError: the text encoder cannot be loaded.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if run.is_done:
        return Aligned.load(run.directory, config)
    run.start()
    seed_everything(config.seed)
    stage = Stage1(split, backbone, config, run, kept)
    phases: dict[str, Callable[[str], Outcome]] = {"heads": stage.train_heads}
    if not config.freeze:
        phases["text encoder"] = stage.fine_tune
    # With a frozen encoder, too, or its heads would learn for fewer steps.
    phases["refit heads"] = stage.refit_heads
    curve: list[Record] = []
    metrics = {}
    for name, phase in phases.items():
        outcome = phase(name)
        validation = stage.validate()
        curve += _after(curve, [*outcome.curve, {**outcome.end, **validation}])
        metrics[name] = {"steps": outcome.steps, "minutes": outcome.minutes, "ended_by": outcome.ended_by, **validation}
        run.say(
            f"stage1 {name}: validation ndcg@10 items {validation['item_ndcg@10']:.4f},"
            f" texts {validation['text_ndcg@10']:.4f}"
        )
    run.write_curve(curve, "stage 1")
    result = stage.result()
    run.alone(lambda: result.save(run.directory))
    run.finish(metrics)
    return Aligned.load(run.directory, config)


def _after(before: Sequence[Record], curve: Sequence[Record]) -> list[Record]:
    """`curve` with its steps, epochs and minutes counted on from the end of `before`."""
    end = before[-1] if before else {}
    axes = ("step", "epoch", "minutes")
    return [{**record, **{axis: record[axis] + end.get(axis, 0.0) for axis in axes}} for record in curve]


def chosen_positions(sequences: Sequence[np.ndarray], limit: int, seed: int = 0) -> list[tuple[int, int]]:
    """Sequence and position of what is to be predicted: of each sequence the last item and up to `limit` - 1 others.

    The others are drawn at random, without repeats; a sequence's first item has nothing before it and is never one.
    """
    rng = np.random.default_rng(seed)
    return [
        (number, int(place))
        for number, items in enumerate(sequences)
        if len(items) > 1
        for place in (len(items) - 1, *(1 + rng.permutation(len(items) - 2)[: limit - 1]))
    ]


@dataclass(frozen=True)
class _Batch:
    """Rows of the examples, what seeds their negatives, and to how many they are dealt out, of which this is one."""

    rows: np.ndarray
    seed: tuple[int, int, int]
    dealt: tuple[int, int] = (0, 1)

    @property
    def mine(self) -> slice:
        """Which of the rows are computed here."""
        index, count = self.dealt
        return slice(index, None, count)

    def part(self, index: int, count: int) -> tuple[_Batch | None, float]:
        """As `Task.part`."""
        part = replace(self, dealt=(index, count))
        rows = len(self.rows[part.mine])
        return part if rows else None, rows / len(self.rows)


class Stage1:
    """The networks in training, and the data as the losses want it."""

    def __init__(
        self, split: SequenceSplit, backbone: Backbone, config: Stage1Config, run: StageRun, kept: Path | None = None
    ) -> None:
        self.split, self.config, self.run = split, config, run
        self.backbone = backbone.to(config.device)
        self.encoder = TextEncoder(config.text_encoder, config.max_text_tokens, config.device)
        texts = catalogue_texts(split.catalogue, config.text_categories)
        self.tokens = self.encoder.tokenize(texts)
        self.trained = torch.from_numpy(split.catalogue.trained).to(config.device)
        self.known = backbone.places(self.trained)
        self.item_vectors = backbone.item_vectors.detach()
        self._examples()

        sizes = AlignmentConfig(
            cf_size=backbone.embedding_size, text_size=self.encoder.size, joint_size=config.joint_size
        )
        self.alignment = Alignment(sizes).to(config.device)
        self.loss = Stage1Loss(self.alignment, config)
        self.text_vectors = sentence_vectors(
            texts, config.text_encoder, config.max_text_tokens, kept or run.directory, config.device
        ).to(config.device)
        self.alignment.item_scale.fit(self.item_vectors[self.trained & self.known.to(self.trained.device)])
        self.alignment.text_scale.fit(self.text_vectors[self.trained])

        self.candidates = draw_candidates(split, Holdout.VALIDATION, config.seed).at_most(config.validation_users)
        histories = [split.history(int(user), Holdout.VALIDATION) for user in self.candidates.users]
        self.validation_users = represent_all(self.backbone, histories, users=1 + self.candidates.users)

    def _examples(self) -> None:
        """The chosen positions: whose they are, the positive, and what came before it as x_u."""
        train, trained = self.split.train, int(self.split.catalogue.trained.sum())
        users = [user for user, items in enumerate(train) if len(items) > 1 and len(set(items)) < trained]
        limit = max(1, min(self.config.positions, MOST_POSITIONS // max(1, len(users))))
        chosen = chosen_positions([train[user] for user in users], limit, self.config.seed)
        places = [(users[number], place) for number, place in chosen]
        if not places:
            raise DataError("no training sequence has two items and lacks another: stage 1 has nothing to learn from")
        self.users = np.asarray([user for user, _ in places])
        self.positives = np.asarray([train[user][place] for user, place in places], dtype=np.int64)
        histories = [train[user][:place] for user, place in places]
        self.representations = represent_all(self.backbone, histories, users=1 + self.users)
        self.sampler = self.split.negative_sampler(trained_only=True)

    def train_heads(self, phase: str) -> Outcome:
        """Train the heads on the texts as first encoded."""
        return self._train_heads(self.config.heads, phase)

    def fine_tune(self, phase: str) -> Outcome:
        """Train heads and text encoder together, then encode all texts anew."""
        config = self.config
        groups = [
            {"params": list(self.alignment.parameters()), "lr": config.head_learning_rate},
            {"params": list(self.encoder.parameters()), "lr": config.learning_rate},
        ]
        module = nn.ModuleDict({"alignment": self.alignment, "text_encoder": self.encoder})
        task = self._task(module, torch.optim.Adam(groups, fused=True), config.batch_size, self._encoded)
        outcome = self.run.train(task, config.loop, f"stage1 {phase}", phase)
        self.text_vectors = self._encode_texts()
        return outcome

    def refit_heads(self, phase: str) -> Outcome:
        """Train the heads on the texts as finally encoded."""
        return self._train_heads(self.config.refit, phase)

    def _train_heads(self, loop: LoopConfig, phase: str) -> Outcome:
        optimizer = torch.optim.Adam(self.alignment.parameters(), lr=self.config.head_learning_rate, fused=True)
        task = self._task(self.alignment, optimizer, self.config.head_batch_size, self._looked_up)
        return self.run.train(task, loop, f"stage1 {phase}", phase)

    @torch.no_grad()
    def result(self) -> Aligned:
        """The tables of all items, in eval mode and on the CPU."""
        alignment = self.alignment.eval()
        placement = place(alignment, self.text_vectors, self.item_vectors, self.known)
        for table in (self.text_vectors, *vars(placement).values()):
            table[0] = 0.0
        on_cpu = Placement(**{name: table.cpu() for name, table in vars(placement).items()})
        return Aligned(self.backbone.cpu(), alignment.cpu(), self.encoder.cpu(), self.text_vectors.cpu(), on_cpu)

    @torch.no_grad()
    def validate(self) -> Record:
        """Ranking metrics of the users' vectors with decoded items (`item_`) and decoded texts (`text_`)."""
        self.alignment.eval()
        texts = self.alignment.decode_items(self.alignment.encode_texts(self.text_vectors))
        items = self.alignment.decode_items(self.alignment.encode_items(self.item_vectors))
        metrics: Record = {}
        for name, vectors in (("item", items), ("text", texts)):
            scores = candidate_logits(self.validation_users, vectors, self.candidates.items)
            metrics |= {f"{name}_{metric}": value for metric, value in mean_metrics(scores).items()}
        return metrics

    def _task(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        texts_of: Callable[[np.ndarray], torch.Tensor],
    ) -> Task[_Batch]:
        """What the loop drives; `texts_of` gives Q (2B, d_T) of items (2B,)."""

        def batches(epoch: int) -> Sequence[_Batch]:
            order = epoch_rng(self.config.seed, epoch).permutation(len(self.users))
            starts = range(0, len(order), batch_size)
            return [_Batch(order[at : at + batch_size], (self.config.seed, epoch, at)) for at in starts]

        def loss(batch: _Batch) -> torch.Tensor:
            rows = batch.rows[batch.mine]
            positives = self.positives[rows]
            drawn = self.sampler.sample(self.users[batch.rows], 1, np.random.default_rng(batch.seed))
            negatives = drawn[batch.mine, 0]
            items_2B = np.concatenate([positives, negatives])
            return self.loss(
                self.representations[torch.from_numpy(rows).to(self.representations.device)],
                self.item_vectors[torch.from_numpy(items_2B).to(self.item_vectors.device)],
                texts_of(items_2B),
            )

        return Task(module, optimizer, batches, loss, part=_Batch.part)

    def _looked_up(self, items_2B: np.ndarray) -> torch.Tensor:
        """Q (2B, d_T) of items as last encoded."""
        return self.text_vectors[torch.from_numpy(items_2B).to(self.text_vectors.device)]

    def _encoded(self, items_2B: np.ndarray) -> torch.Tensor:
        """Q (2B, d_T) of items, encoded now, each distinct text once."""
        distinct, places = np.unique(items_2B, return_inverse=True)
        vectors = self.encoder([self.tokens[item] for item in distinct])
        return vectors[torch.from_numpy(places).to(vectors.device)].float()

    def _encode_texts(self) -> torch.Tensor:
        """Q (N+1, d_T)."""
        return self.encoder.encode(self.tokens, autocast=self.config.loop.autocast)
