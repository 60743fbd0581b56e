"""CTRL (Li et al., 2023): a CF model is first aligned with texts by contrast, then fine-tuned on interactions alone.

Both sides see the same user and next item: SASRec as vectors, a frozen text encoder as words. They are compared in
several subspaces, each of one side with the most like it of the other ("fine-grained alignment", its section 3.2).
What is served is SASRec; the texts were only there to initialise it.

Axes: B pairs of a batch, P parts of a vector, D size of a part, Q text size d_T.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from models.alignment.text_encoder import EMBEDDED, TextEncoder
from models.backbones import Backbone, create_backbone, load_backbone, pad_histories, save_backbone
from models.catalogue import Catalogue
from models.files import written_atomically
from models.rankers.base import Ranker
from models.rankers.collaborative import CollaborativeRanker
from training.backbones.config import Preset
from training.backbones.texts import encoder_inputs
from training.baselines.bench import BaselineConfig, Bench
from training.baselines.port import Fitted, Shop, system
from training.baselines.sequential import Phase, train_windows
from training.runs.loop import LoopConfig, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun

TOLD_ITEMS = 5
"""Of a history, in words."""


class CTRLConfig(BaselineConfig):
    """CTRL's sizes and budgets.

    Attributes:
        text_encoder: "embedded", a hub name or a path.
        max_text_tokens: longer descriptions of a pair are cut.
        embedding_size: d.
        dropout: of SASRec.
        parts: subspaces in which the two sides are compared.
        part_size: of each.
        temperature: of the contrast.
        batch_size: of both phases; the more, the more pairs are contrasted.
        learning_rate: of both phases.
        pretraining: how long the contrast is trained.
        loop: how long SASRec is fine-tuned.
    """

    text_encoder: str = EMBEDDED
    max_text_tokens: int = Field(96, gt=2)
    embedding_size: int = Field(50, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    parts: int = Field(4, gt=0)
    part_size: int = Field(32, gt=0)
    temperature: float = Field(0.1, gt=0)
    batch_size: int = Field(128, gt=1)
    learning_rate: float = Field(1e-3, gt=0)
    pretraining: LoopConfig = LoopConfig(epochs=30, minutes=2)
    loop: LoopConfig = LoopConfig(epochs=100, minutes=5, validate_every=2, patience=8)


class Contrast(nn.Module):
    """SASRec and what maps both sides into the common subspaces.

    Args:
        backbone: SASRec.
        text_size: d_T.
        config: sizes.
    """

    def __init__(self, backbone: Backbone, text_size: int, config: CTRLConfig) -> None:
        super().__init__()
        self.backbone, self._parts, self._temperature = backbone, config.parts, config.temperature
        self.from_cf = nn.Linear(2 * backbone.embedding_size, config.parts * config.part_size)
        self.from_text = nn.Linear(text_size, config.parts * config.part_size)

    def forward(self, history_B_T: torch.Tensor, items_B: torch.Tensor, texts_B_Q: torch.Tensor) -> torch.Tensor:
        """The loss of B pairs.

        Args:
            history_B_T: what the users met before.
            items_B: what they met next.
            texts_B_Q: both in words, encoded.
        """
        users_B_D = self.backbone.represent(history_B_T)
        pairs = torch.cat([users_B_D, functional.embedding(items_B, self.backbone.item_vectors)], dim=1)
        ours, theirs = self.from_cf(pairs), self.from_text(texts_B_Q)
        parts = (len(items_B), self._parts, -1)
        return contrast(ours.view(parts), theirs.view(parts), self._temperature)


def contrast(ours_B_P_D: torch.Tensor, theirs_B_P_D: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE in both directions; how like two are is summed over the parts of one, of each its best cosine."""
    ours, theirs = functional.normalize(ours_B_P_D, dim=-1), functional.normalize(theirs_B_P_D, dim=-1)
    cosines = torch.einsum("apd,bqd->abpq", ours, theirs)
    to_theirs, to_ours = cosines.amax(dim=3).sum(dim=2), cosines.amax(dim=2).sum(dim=2).T
    answers = torch.arange(len(ours), device=ours.device)
    losses = [functional.cross_entropy(likeness / temperature, answers) for likeness in (to_theirs, to_ours)]
    return (losses[0] + losses[1]) / 2


def in_words(catalogue: Catalogue, history: np.ndarray, item: int) -> str:
    """A user and an item: the latest titles, and the next one."""
    told = ", ".join(catalogue.titles[known] for known in history[-TOLD_ITEMS:])
    return f"next: {catalogue.titles[item]}; before: {told}"


@system("ctrl", "CTRL", takes="interactions, text encoder")
def ctrl(bench: Bench) -> Fitted:
    """SASRec initialised by contrast with texts. It knows nothing of another catalogue's items."""
    config = bench.config("ctrl", CTRLConfig)
    inputs = encoder_inputs(config.text_encoder)
    directory = bench.trained("ctrl", config, inputs, lambda run: _train(bench, config, run))
    network = load_backbone(directory)

    def ranker(shop: Shop) -> Ranker:
        vectors = torch.zeros(len(shop.catalogue) + 1, network.embedding_size) if shop.foreign else None
        return CollaborativeRanker("ctrl", "CTRL", network, vectors, vectors)

    return ranker


def _train(bench: Bench, config: CTRLConfig, run: StageRun) -> dict[str, Any]:
    split = bench.split
    users = [user for user, items in enumerate(split.train) if len(items) > 1]
    texts_U_Q = _pair_texts(bench, config, users, run.directory / "pairs.pt").to(config.device)
    seed_everything(config.seed)
    sizes = {"num_items": len(split.catalogue), "embedding_size": config.embedding_size, "dropout": config.dropout}
    network = create_backbone("sasrec", sizes).to(config.device)
    module = Contrast(network, texts_U_Q.shape[1], config).to(config.device)

    def batches(epoch: int) -> Sequence[np.ndarray]:
        order = epoch_rng(config.seed, epoch).permutation(len(users))
        rows = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
        return [chosen for chosen in rows if len(chosen) > 1]

    def loss(rows: np.ndarray) -> torch.Tensor:
        sequences = [split.train[users[row]] for row in rows]
        histories = torch.from_numpy(pad_histories([items[:-1] for items in sequences], network.max_length))
        nexts = torch.tensor([items[-1] for items in sequences])
        found: torch.Tensor = module(
            histories.to(config.device), nexts.to(config.device), texts_U_Q[torch.from_numpy(rows)]
        )
        return found

    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    aligned = run.train(Task(module, optimizer, batches, loss), config.pretraining, "ctrl contrast", "contrast")
    preset = Preset(batch_size=config.batch_size, learning_rate=config.learning_rate)
    phase = Phase("ctrl fine-tuning", config.loop, config.seed)
    tuned = train_windows(network, split, preset, phase, run)
    save_backbone(network, run.directory)
    return {"contrast": aligned.summary, "fine-tuning": tuned.summary}


def _pair_texts(bench: Bench, config: CTRLConfig, users: Sequence[int], path: Path) -> torch.Tensor:
    """(U, d_T) the last step of every training sequence in words, encoded once."""
    if not path.is_file():
        encoder = TextEncoder(config.text_encoder, config.max_text_tokens, config.device)
        sequences = [bench.split.train[user] for user in users]
        texts = [in_words(bench.split.catalogue, items[:-1], int(items[-1])) for items in sequences]
        with written_atomically(path) as partial:
            torch.save(encoder.encode(encoder.tokenize(texts)).cpu(), partial)
    loaded: torch.Tensor = torch.load(path, weights_only=True)
    return loaded
