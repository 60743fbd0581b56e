"""Stage 1: align items with their text (A-LLMRec section 4.1).

`L = L_matching + alpha L_item_recon + beta L_text_recon + L_rec`, on the last and other positions of every training
sequence.
The heads are trained first, on texts encoded once: that takes seconds. Then, unless frozen, the text encoder is
fine-tuned with them, which is what costs time, and last the heads are fitted to the texts as they are now encoded.

Axes: B positions of a batch, P positive and negative items of a batch, D CF size, J joint size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.text_encoder import EMBEDDED, TextEncoder, catalogue_texts
from models.backbones import Backbone, load_backbone, represent_all, save_backbone
from models.config import Config
from models.errors import DataError
from models.rankers.collaborative import candidate_logits
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.metrics import mean_metrics
from training.runs.loop import LoopConfig, Outcome, Record, Task, epoch_rng, seed_everything, train
from training.runs.stage_run import StageRun

ALIGNMENT_FILE = "alignment.safetensors"
TABLES_FILE = "tables.safetensors"
TEXT_ENCODER_FOLDER = "text_encoder"
MOST_POSITIONS = 400_000
"""Of all sequences together, though each has one at least: about as many as the heads meet by default."""


class Stage1Config(Config):
    """The stage `stage1`.

    Attributes:
        text_encoder: "embedded", a hub name or a path of a sentence-transformers model.
        max_text_tokens: longer item texts are cut.
        text_categories: item texts name the item's categories, beside title and description as in the paper.
        freeze: leave the text encoder as it is (ablation "Freeze SBERT").
        joint_size: d'.
        item_reconstruction: alpha.
        text_reconstruction: beta; 0.5 (Movies, Games) or 0.2 (Beauty, Toys) in the paper.
        text_recommendation: weight of L_rec on `f_I_dec(f_T_enc(Q))` as well. The paper has 0; without it nothing
            teaches decoded texts to be ranked, and items that the backbone never saw are hardly ever retrieved.
        positions: at most this many of every training sequence are learned from, fewer where users are so many that
            these would exceed `MOST_POSITIONS`. The paper has 1, the last, which is little where few users have long
            histories.
        batch_size: positions a step while the encoder is fine-tuned.
        learning_rate: of the text encoder.
        head_learning_rate: of the encoders into and the decoders out of the joint space.
        head_batch_size: positions a step while the text encoder rests.
        heads: how long the heads are trained on the texts as first encoded.
        loop: how long the text encoder is fine-tuned; its `autocast` also holds where texts are encoded.
        polish: how long the heads are trained on the texts as finally encoded.
        validation_users: at most this many users are validated on.
        device: where it runs.
        seed: of everything random.
    """

    text_encoder: str = EMBEDDED
    max_text_tokens: int = Field(64, gt=2)
    text_categories: bool = True
    freeze: bool = False
    joint_size: int = Field(128, gt=0)
    item_reconstruction: float = Field(0.5, ge=0)
    text_reconstruction: float = Field(0.5, ge=0)
    text_recommendation: float = Field(1.0, ge=0)
    positions: int = Field(20, gt=0)
    batch_size: int = Field(32, gt=0)
    learning_rate: float = Field(1e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    head_batch_size: int = Field(256, gt=0)
    heads: LoopConfig = LoopConfig(max_steps=2000, decay_from=0.0)
    loop: LoopConfig = LoopConfig(epochs=10, minutes=3, decay_from=0.5, clip_norm=1.0, autocast=True)
    polish: LoopConfig = LoopConfig(max_steps=1000, decay_from=0.0)
    validation_users: int = Field(4000, gt=0)
    device: str = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class Aligned:
    """What stage 1 leaves.

    Attributes:
        backbone: as it came, frozen.
        alignment: the encoders and decoders, frozen.
        text_encoder: fine-tuned unless frozen.
        text_vectors: (N+1, d_T) Q.
        joint_item: (N+1, d') e_i, or q_i for items that the backbone never saw.
        joint_text: (N+1, d') q_i of all items.
        cf_vectors: (N+1, d) E_i, or f_I_dec(q_i) for items that the backbone never saw: all can be retrieved.
        decoded_item: (N+1, d) f_I_dec of `joint_item`.
        decoded_text: (N+1, d) f_I_dec of `joint_text`.

    Row 0 of every table is zeros.
    """

    backbone: Backbone
    alignment: Alignment
    text_encoder: TextEncoder
    text_vectors: torch.Tensor
    joint_item: torch.Tensor
    joint_text: torch.Tensor
    cf_vectors: torch.Tensor
    decoded_item: torch.Tensor
    decoded_text: torch.Tensor

    TABLES = ("text_vectors", "joint_item", "joint_text", "cf_vectors", "decoded_item", "decoded_text")

    def save(self, directory: Path) -> None:
        """Write networks, tables and text encoder into `directory`."""
        save_backbone(self.backbone, directory)
        weights = {name: tensor.contiguous() for name, tensor in self.alignment.state_dict().items()}
        save_file(weights, directory / ALIGNMENT_FILE)
        save_file({name: getattr(self, name).contiguous() for name in self.TABLES}, directory / TABLES_FILE)
        self.text_encoder.save(directory / TEXT_ENCODER_FOLDER)

    @classmethod
    def load(cls, directory: Path, config: Stage1Config) -> Aligned:
        """What `save` wrote.

        Raises:
            ConfigError: the backbone or the text encoder cannot be loaded.
        """
        tables = load_file(directory / TABLES_FILE)
        sizes = AlignmentConfig(
            cf_size=tables["cf_vectors"].shape[1],
            text_size=tables["text_vectors"].shape[1],
            joint_size=tables["joint_item"].shape[1],
        )
        alignment = Alignment(sizes)
        alignment.load_state_dict(load_file(directory / ALIGNMENT_FILE))
        weights = directory / TEXT_ENCODER_FOLDER
        encoder = TextEncoder(config.text_encoder, config.max_text_tokens, weights=weights)
        return cls(load_backbone(directory), alignment.eval().requires_grad_(False), encoder, **tables)


def train_stage1(
    split: SequenceSplit, backbone: Backbone, config: Stage1Config, run: StageRun, console: Console | None = None
) -> Aligned:
    """Run the stage, or load its result if it is done.

    Args:
        split: the data.
        backbone: trained, frozen.
        config: the stage's config, of which `run` was made.
        run: the stage's directory.
        console: where progress is shown.

    Raises:
        DataError: no training sequence has two items.
        ConfigError: the text encoder cannot be loaded.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if run.is_done:
        return Aligned.load(run.directory, config)
    run.start()
    seed_everything(config.seed)
    console = console or Console(stderr=True)
    stage = _Stage1(split, backbone, config, console)
    phases: dict[str, Callable[[Path, str], Outcome]] = {"heads": stage.train_heads}
    if not config.freeze:
        phases |= {"text encoder": stage.fine_tune, "polish": stage.polish}
    curve: list[Record] = []
    metrics = {}
    for name, phase in phases.items():
        outcome = phase(run.checkpoint_of(name.replace(" ", "_")), f"stage1 {name}")
        validation = stage.validate()
        curve += _after(curve, [*outcome.curve, {**outcome.end, **validation}])
        metrics[name] = {"steps": outcome.steps, "minutes": outcome.minutes, "ended_by": outcome.ended_by, **validation}
        console.print(
            f"stage1 {name}: validation ndcg@10 items {validation['item_ndcg@10']:.4f},"
            f" texts {validation['text_ndcg@10']:.4f}",
            highlight=False,
        )
    run.write_curve(curve, "stage 1")
    stage.result().save(run.directory)
    run.finish(metrics)
    return Aligned.load(run.directory, config)


def _after(before: Sequence[Record], curve: Sequence[Record]) -> list[Record]:
    """`curve` with its steps, epochs and minutes counted on from the end of `before`."""
    end = before[-1] if before else {}
    axes = ("step", "epoch", "minutes")
    return [{**record, **{axis: record[axis] + end.get(axis, 0.0) for axis in axes}} for record in curve]


class Stage1Loss:
    """The losses of one batch: B positives, followed by B negatives.

    Reconstruction is measured in standardised units, where both spaces have the same spread.

    Args:
        alignment: the networks.
        config: the weights of the losses.
    """

    def __init__(self, alignment: Alignment, config: Stage1Config) -> None:
        self.alignment, self.config = alignment, config

    def __call__(self, users_B_D: torch.Tensor, items_P_D: torch.Tensor, texts_P_T: torch.Tensor) -> torch.Tensor:
        """The weighted sum of all losses.

        Args:
            users_B_D: x_u before the positive.
            items_P_D: E of the items, P = 2B.
            texts_P_T: Q of the items.
        """
        alignment, config = self.alignment, self.config
        items_P_J, texts_P_J = alignment.encode_items(items_P_D), alignment.encode_texts(texts_P_T)
        items_P_D_, texts_P_T_ = alignment.item_decoder(items_P_J), alignment.text_decoder(texts_P_J)
        matching = summed_mse(items_P_J, texts_P_J)
        item_reconstruction = summed_mse(items_P_D_, alignment.item_scale(items_P_D))
        text_reconstruction = summed_mse(texts_P_T_, alignment.text_scale(texts_P_T).detach())
        recommendation = ranking_loss(users_B_D, alignment.item_scale.inverse(items_P_D_))
        text_recommendation = ranking_loss(users_B_D, alignment.decode_items(texts_P_J))
        return (
            matching
            + config.item_reconstruction * item_reconstruction
            + config.text_reconstruction * text_reconstruction
            + recommendation
            + config.text_recommendation * text_recommendation
        )


def summed_mse(found_P_D: torch.Tensor, wanted_P_D: torch.Tensor) -> torch.Tensor:
    """MSE of the positives plus MSE of the negatives."""
    return 2.0 * functional.mse_loss(found_P_D, wanted_P_D)


def ranking_loss(users_B_D: torch.Tensor, items_P_D: torch.Tensor) -> torch.Tensor:
    """L_rec: mean of -log sigma(x_u . positive) - log(1 - sigma(x_u . negative)); positives come first."""
    positives_B_D, negatives_B_D = items_P_D.chunk(2)
    positive_B, negative_B = (users_B_D * positives_B_D).sum(dim=-1), (users_B_D * negatives_B_D).sum(dim=-1)
    return (functional.softplus(-positive_B) + functional.softplus(negative_B)).mean()


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
    """Rows of the examples, and what seeds their negatives."""

    rows: np.ndarray
    seed: tuple[int, int, int]


class _Stage1:
    """The networks in training, and the data as the losses want it."""

    def __init__(self, split: SequenceSplit, backbone: Backbone, config: Stage1Config, console: Console) -> None:
        self.split, self.config, self.console = split, config, console
        self.backbone = backbone.to(config.device)
        self.encoder = TextEncoder(config.text_encoder, config.max_text_tokens, config.device)
        self.tokens = self.encoder.tokenize(catalogue_texts(split.catalogue, config.text_categories))
        self.warm = torch.from_numpy(split.catalogue.trained).to(config.device)
        self.item_vectors = backbone.item_vectors.detach()
        self._examples()

        sizes = AlignmentConfig(
            cf_size=backbone.embedding_size, text_size=self.encoder.size, joint_size=config.joint_size
        )
        self.alignment = Alignment(sizes).to(config.device)
        self.loss = Stage1Loss(self.alignment, config)
        self.text_vectors = self._encode_texts()
        self.alignment.item_scale.fit(self.item_vectors[self.warm])
        self.alignment.text_scale.fit(self.text_vectors[self.warm])

        self.candidates = draw_candidates(split, Holdout.VALIDATION, config.seed).at_most(config.validation_users)
        histories = [split.history(int(user), Holdout.VALIDATION) for user in self.candidates.users]
        self.validation_users = represent_all(self.backbone, histories)

    def _examples(self) -> None:
        """The chosen positions: whose they are, the positive, and what came before it as x_u."""
        train, warm = self.split.train, int(self.split.catalogue.trained.sum())
        users = [user for user, items in enumerate(train) if len(items) > 1 and len(set(items)) < warm]
        limit = max(1, min(self.config.positions, MOST_POSITIONS // max(1, len(users))))
        chosen = chosen_positions([train[user] for user in users], limit, self.config.seed)
        places = [(users[number], place) for number, place in chosen]
        if not places:
            raise DataError("no training sequence has two items and lacks another: stage 1 has nothing to learn from")
        self.users = np.asarray([user for user, _ in places])
        self.positives = np.asarray([train[user][place] for user, place in places], dtype=np.int64)
        self.representations = represent_all(self.backbone, [train[user][:place] for user, place in places])
        self.sampler = self.split.negative_sampler(warm_only=True)

    def train_heads(self, checkpoint: Path, label: str) -> Outcome:
        """Train the heads on the texts as first encoded."""
        return self._train_heads(self.config.heads, checkpoint, label)

    def fine_tune(self, checkpoint: Path, label: str) -> Outcome:
        """Train heads and text encoder together, then encode all texts anew."""
        config = self.config
        groups = [
            {"params": list(self.alignment.parameters()), "lr": config.head_learning_rate},
            {"params": list(self.encoder.parameters()), "lr": config.learning_rate},
        ]
        module = nn.ModuleDict({"alignment": self.alignment, "text_encoder": self.encoder})
        optimizer = torch.optim.Adam(groups, fused=True)
        outcome = self._train(module, optimizer, config.batch_size, self._encoded, config.loop, checkpoint, label)
        self.text_vectors = self._encode_texts()
        return outcome

    def polish(self, checkpoint: Path, label: str) -> Outcome:
        """Train the heads on the texts as finally encoded."""
        return self._train_heads(self.config.polish, checkpoint, label)

    def _train_heads(self, loop: LoopConfig, checkpoint: Path, label: str) -> Outcome:
        optimizer = torch.optim.Adam(self.alignment.parameters(), lr=self.config.head_learning_rate, fused=True)
        size = self.config.head_batch_size
        return self._train(self.alignment, optimizer, size, self._looked_up, loop, checkpoint, label)

    @torch.no_grad()
    def result(self) -> Aligned:
        """The tables of all items, in eval mode and on the CPU."""
        alignment = self.alignment.eval()
        joint_text = alignment.encode_texts(self.text_vectors)
        joint_item = torch.where(self.trained[:, None], alignment.encode_items(self.item_vectors), joint_text)
        decoded_text = alignment.decode_items(joint_text)
        tables = {
            "text_vectors": self.text_vectors,
            "joint_item": joint_item,
            "joint_text": joint_text,
            "cf_vectors": torch.where(self.trained[:, None], self.item_vectors, decoded_text),
            "decoded_item": alignment.decode_items(joint_item),
            "decoded_text": decoded_text,
        }
        for table in tables.values():
            table[0] = 0.0
        return Aligned(
            self.backbone.cpu(), alignment.cpu(), self.encoder.cpu(), **{k: table.cpu() for k, table in tables.items()}
        )

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

    def _train(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        texts_of: Callable[[np.ndarray], torch.Tensor],
        loop: LoopConfig,
        checkpoint: Path,
        label: str,
    ) -> Outcome:
        def batches(epoch: int) -> Sequence[_Batch]:
            order = epoch_rng(self.config.seed, epoch).permutation(len(self.users))
            starts = range(0, len(order), batch_size)
            return [_Batch(order[at : at + batch_size], (self.config.seed, epoch, at)) for at in starts]

        def loss(batch: _Batch) -> torch.Tensor:
            positives = self.positives[batch.rows]
            negatives = self.sampler.sample(self.users[batch.rows], 1, np.random.default_rng(batch.seed))[:, 0]
            items_P = np.concatenate([positives, negatives])
            return self.loss(
                self.representations[torch.from_numpy(batch.rows).to(self.representations.device)],
                self.item_vectors[torch.from_numpy(items_P).to(self.item_vectors.device)],
                texts_of(items_P),
            )

        return train(Task(module, optimizer, batches, loss), loop, checkpoint, label, self.console)

    def _looked_up(self, items_P: np.ndarray) -> torch.Tensor:
        """Q (P, d_T) of items as last encoded."""
        return self.text_vectors[torch.from_numpy(items_P).to(self.text_vectors.device)]

    def _encoded(self, items_P: np.ndarray) -> torch.Tensor:
        """Q (P, d_T) of items, encoded now, each distinct text once."""
        distinct, places = np.unique(items_P, return_inverse=True)
        vectors = self.encoder([self.tokens[item] for item in distinct])
        return vectors[torch.from_numpy(places).to(vectors.device)].float()

    def _encode_texts(self) -> torch.Tensor:
        """Q (N+1, d_T)."""
        return self.encoder.encode(self.tokens, autocast=self.config.loop.autocast)
