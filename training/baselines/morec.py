"""MoRec (Yuan et al., SIGIR 2023): SASRec whose items are their texts, `E_i = A Q_i`, the text encoder trained along.

The adapter is trained first, on texts encoded once, then the encoder with it: a short budget is not spent on encoding.

Axes: N items, M some of them, Q text size d_T.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from models.alignment.text_encoder import EMBEDDED, TextEncoder, catalogue_texts
from models.backbones import load_backbone, save_backbone
from models.backbones.hybrid import Hybrid, HybridConfig
from models.catalogue import PADDING_ITEM, Catalogue
from models.rankers.base import Ranker
from models.rankers.collaborative import CollaborativeRanker
from training.backbones.config import Preset
from training.backbones.texts import encoder_inputs
from training.baselines.bench import BaselineConfig, Bench
from training.baselines.port import Fitted, Shop, system
from training.baselines.sequential import Phase, train_windows
from training.runs.loop import LoopConfig, seed_everything
from training.runs.stage_run import StageRun

ENCODER_FOLDER = "text_encoder"


class MoRecConfig(BaselineConfig):
    """MoRec's sizes and budgets.

    Attributes:
        text_encoder: "embedded", a hub name or a path.
        max_text_tokens: longer item texts are cut.
        embedding_size: d.
        dropout: of SASRec.
        batch_size: windows a step, while the encoder rests.
        learning_rate: of adapter and SASRec.
        encoder_batch_size: windows a step while the encoder is trained; every item of a step is encoded.
        encoder_learning_rate: of the encoder.
        tuning: how long the encoder is trained along; not at all if not given.
    """

    text_encoder: str = EMBEDDED
    max_text_tokens: int = Field(48, gt=2)
    embedding_size: int = Field(50, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    batch_size: int = Field(128, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    encoder_batch_size: int = Field(8, gt=0)
    encoder_learning_rate: float = Field(2e-5, gt=0)
    loop: LoopConfig = LoopConfig(epochs=100, minutes=5, validate_every=2, patience=8)
    tuning: LoopConfig | None = LoopConfig(epochs=1, minutes=5, validate_first=True)


class MoRecNetwork(Hybrid):
    """SASRec over `A Q_i`. Once it was given an encoder, texts are encoded as they are needed."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.encoder: TextEncoder | None = None
        self.tokens: Sequence[Sequence[int]] = []

    def tune(self, encoder: TextEncoder, tokens: Sequence[Sequence[int]]) -> None:
        """Train the encoder along from now on.

        Args:
            encoder: the one that made the texts.
            tokens: of all N+1 items.
        """
        self.encoder, self.tokens = encoder, tokens

    def vectors_of(self, items_M: torch.Tensor) -> torch.Tensor:
        """See `Backbone.vectors_of`."""
        if self.encoder is None or not self.training:
            return super().vectors_of(items_M)
        encoded_M_Q = self.encoder([self.tokens[item] for item in items_M.tolist()]).float()
        placed_M_D: torch.Tensor = self.adapter(encoded_M_Q)
        return placed_M_D * (items_M != PADDING_ITEM)[:, None]

    def train(self, mode: bool = True) -> MoRecNetwork:
        """As in torch; texts are encoded anew when training pauses."""
        if not mode and self.training and self.encoder is not None:
            self.encode()
        super().train(mode)
        return self

    def encode(self) -> None:
        """Read all texts as the encoder now writes them."""
        if self.encoder is not None:
            self.read_texts(self.encoder.encode(self.tokens), torch.zeros(len(self.tokens), dtype=torch.bool))


@system("morec", "MoRec", takes="interactions, text encoder")
def morec(bench: Bench) -> Fitted:
    """Items of another catalogue are known as well as its own: by their texts."""
    config = bench.config("morec", MoRecConfig)
    inputs = encoder_inputs(config.text_encoder)
    directory = bench.trained("morec", config, inputs, lambda run: _train(bench, config, run))
    network = load_backbone(directory)

    def ranker(shop: Shop) -> Ranker:
        vectors = vectors_by(directory, config, shop.catalogue, network) if shop.foreign else None
        return CollaborativeRanker("morec", "MoRec", network, vectors, vectors)

    return ranker


def vectors_by(directory: Path, config: MoRecConfig, catalogue: Catalogue, network: Any) -> torch.Tensor:
    """(N+1, d) vectors of any catalogue's items by the trained encoder and adapter."""
    encoder = TextEncoder(
        config.text_encoder, config.max_text_tokens, config.device, weights=directory / ENCODER_FOLDER
    )
    vectors_N_Q = encoder.encode(encoder.tokenize(catalogue_texts(catalogue, categories=False)))
    vectors_N_D: torch.Tensor = network.vectors_of_texts(vectors_N_Q)
    vectors_N_D[PADDING_ITEM] = 0.0
    return vectors_N_D


def _train(bench: Bench, config: MoRecConfig, run: StageRun) -> dict[str, Any]:
    split = bench.split
    seed_everything(config.seed)
    encoder = TextEncoder(config.text_encoder, config.max_text_tokens, config.device)
    tokens = encoder.tokenize(catalogue_texts(split.catalogue, categories=False))
    sizes = {name: getattr(config, name) for name in ("embedding_size", "dropout", "text_encoder", "max_text_tokens")}
    network = MoRecNetwork(HybridConfig(num_items=len(split.catalogue), text_size=encoder.size, **sizes))
    network = network.to(config.device)
    network.read_texts(encoder.encode(tokens), torch.zeros(len(tokens), dtype=torch.bool))
    preset = Preset(kind="hybrid", batch_size=config.batch_size, learning_rate=config.learning_rate)
    phase = Phase("morec adapter", config.loop, config.seed)
    metrics = {"adapter": train_windows(network, split, preset, phase, run).summary}
    if config.tuning is not None:
        network.tune(encoder, tokens)
        preset = preset.model_copy(update={"batch_size": config.encoder_batch_size})
        rates = _rates(network, encoder, config)
        phase = Phase("morec text encoder", config.tuning, config.seed)
        tuned = train_windows(network, split, preset, phase, run, rates)
        metrics["text encoder"] = tuned.summary
        network.encode()
    encoder.save(run.directory / ENCODER_FOLDER)
    network.encoder = None
    save_backbone(network, run.directory)
    return metrics


def _rates(network: MoRecNetwork, encoder: TextEncoder, config: MoRecConfig) -> list[dict[str, object]]:
    own = {id(parameter) for parameter in encoder.parameters()}
    return [
        {"params": list(encoder.parameters()), "lr": config.encoder_learning_rate},
        {"params": [parameter for parameter in network.parameters() if id(parameter) not in own]},
    ]
