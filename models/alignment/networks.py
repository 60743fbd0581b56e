"""The networks of stage 1: items and their texts in one joint space (A-LLMRec section 4.1).

Axes: D CF size d, Q text size d_T (of Q_i), J joint size d'.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from models.config import Config


class AlignmentConfig(Config):
    """Sizes of the three spaces.

    Attributes:
        cf_size: d, of the backbone's item vectors.
        text_size: d_T, of the text encoder's vectors.
        joint_size: d'.
    """

    cf_size: int = Field(gt=0)
    text_size: int = Field(gt=0)
    joint_size: int = Field(128, gt=0)


class Alignment(nn.Module):
    """Two encoders (linear and sigmoid) into the joint space and two linear decoders out of it.

    Inputs are centred and scaled by one number each, and decoded vectors are scaled back: sentence vectors have unit
    norm, so that their coordinates are too small to move a sigmoid. One number, not one per coordinate, so that the
    inner products that rank items keep their geometry.
    """

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        self.item_encoder = nn.Sequential(nn.Linear(config.cf_size, config.joint_size), nn.Sigmoid())
        self.text_encoder = nn.Sequential(nn.Linear(config.text_size, config.joint_size), nn.Sigmoid())
        self.item_decoder = nn.Linear(config.joint_size, config.cf_size)
        self.text_decoder = nn.Linear(config.joint_size, config.text_size)
        self.item_scale = Standardisation(config.cf_size)
        self.text_scale = Standardisation(config.text_size)

    def encode_items(self, vectors: torch.Tensor) -> torch.Tensor:
        """e = f_I_enc(E): (..., d) to (..., d')."""
        return self.item_encoder(self.item_scale(vectors))

    def encode_texts(self, vectors: torch.Tensor) -> torch.Tensor:
        """q = f_T_enc(Q): (..., d_T) to (..., d')."""
        return self.text_encoder(self.text_scale(vectors))

    def decode_items(self, joint: torch.Tensor) -> torch.Tensor:
        """f_I_dec: (..., d') to (..., d). Of q_i it gives an item that the backbone never saw a place in CF space."""
        return self.item_scale.inverse(self.item_decoder(joint))


class Standardisation(nn.Module):
    """(x - mean) / spread, with a mean per coordinate and one spread for all."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.spread: torch.Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(()))

    def fit(self, vectors: torch.Tensor) -> None:
        """Take mean and spread from (n, size) vectors."""
        self.mean.copy_(vectors.mean(dim=0))
        self.spread.copy_((vectors - self.mean).square().mean().sqrt().clamp_min(1e-6))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Standardise (..., size)."""
        return (vectors - self.mean) / self.spread

    def inverse(self, vectors: torch.Tensor) -> torch.Tensor:
        """Undo `forward`."""
        return vectors * self.spread + self.mean
