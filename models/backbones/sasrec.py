"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018), the backbone of A-LLMRec."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from models.backbones.base import Backbone, BackboneConfig


class SASRecConfig(BackboneConfig):
    """The reference's sizes by default.

    Attributes:
        blocks: self-attention blocks.
        heads: attention heads; divides the embedding size.
        dropout: on embeddings, attention and feed-forward layers; 0.5 in the paper, 0.2 suits denser data.
    """

    blocks: int = Field(2, gt=0)
    heads: int = Field(1, gt=0)
    dropout: float = Field(0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> SASRecConfig:
        if self.embedding_size % self.heads:
            raise ValueError(f"{self.heads} heads do not divide an embedding size of {self.embedding_size}")
        return self


class SASRec(Backbone):
    """Item embeddings, positions counted from the latest item, and causal self-attention blocks."""

    kind = "sasrec"

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        size = config.embedding_size
        self.items = nn.Embedding(config.num_items + 1, size, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, size)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(size, config.heads, config.dropout) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(size, eps=1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.items.weight[0] = 0.0

    @property
    def item_vectors(self) -> torch.Tensor:
        """E: (N+1, d), row 0 zeros."""
        return self.items.weight

    def outputs(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,  # noqa: ARG002 - it knows users by their histories
    ) -> torch.Tensor:
        """As `Backbone.outputs`."""
        table = self.item_vectors if item_vectors is None else item_vectors
        embedded_B_T_D = functional.embedding(history_B_T, table, padding_idx=0) * self.embedding_size**0.5
        length = history_B_T.shape[1]
        # Counted from the end, so that a batch may be cropped to its longest history.
        ages_T = torch.arange(length - 1, -1, -1, device=history_B_T.device)
        real_B_T = history_B_T != 0
        x_B_T_D = self.dropout(embedded_B_T_D + self.positions(ages_T)) * real_B_T[..., None]
        causal_T_T = torch.ones(length, length, dtype=torch.bool, device=history_B_T.device).tril()
        itself_T_T = torch.eye(length, dtype=torch.bool, device=history_B_T.device)
        visible_B_T_T = (causal_T_T & real_B_T[:, None, :]) | itself_T_T
        for block in self.blocks:
            x_B_T_D = block(x_B_T_D, visible_B_T_T) * real_B_T[..., None]
        return self.norm(x_B_T_D) * real_B_T[..., None]


class Block(nn.Module):
    """Attention with normalised queries over raw keys and values, then a feed-forward layer, as in the reference."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(size, eps=1e-8)
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.output = nn.Linear(size, size)
        self.forward_norm = nn.LayerNorm(size, eps=1e-8)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, size), nn.Dropout(dropout), nn.ReLU(), nn.Linear(size, size), nn.Dropout(dropout)
        )
        self.attention_dropout = dropout

    def forward(self, x_B_T_D: torch.Tensor, visible_B_T_T: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to (B, T, d); `visible_B_T_T` is True where a row's position sees the column's."""
        query_B_T_D = self.attention_norm(x_B_T_D)
        key_B_T_D, value_B_T_D = self.key_value(x_B_T_D).chunk(2, dim=-1)
        attended_B_H_T_d = functional.scaled_dot_product_attention(
            self._split(self.query(query_B_T_D)),
            self._split(key_B_T_D),
            self._split(value_B_T_D),
            attn_mask=visible_B_T_T[:, None],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        x_B_T_D = query_B_T_D + self.output(attended_B_H_T_d.transpose(1, 2).flatten(2))
        x_B_T_D = self.forward_norm(x_B_T_D)
        return x_B_T_D + self.feed_forward(x_B_T_D)

    def _split(self, x_B_T_D: torch.Tensor) -> torch.Tensor:
        rows, length, size = x_B_T_D.shape
        return x_B_T_D.view(rows, length, self.heads, size // self.heads).transpose(1, 2)
