"""GRU4Rec: a recurrent network over the items of a history (Hidasi et al., ICLR 2016)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from models.backbones.base import Backbone, BackboneConfig


class GRU4RecConfig(BackboneConfig):
    """One layer by default, as the paper found best.

    Attributes:
        hidden_size: of the recurrent layers.
        layers: recurrent layers.
        dropout: on item embeddings, and between and after the layers.
    """

    hidden_size: int = Field(100, gt=0)
    layers: int = Field(1, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)


class GRU4Rec(Backbone):
    """Item embeddings read by a GRU, whose state is mapped into their space: input and output embeddings are one.

    Not the paper's: it trains on sessions one step at a time with a ranking loss; here sequences are learned from
    whole, by the project's objectives.
    """

    kind = "gru4rec"

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        size = config.embedding_size
        self.items = nn.Embedding(config.num_items + 1, size, padding_idx=0)
        self.dropout = nn.Dropout(config.dropout)
        between = config.dropout if config.layers > 1 else 0.0
        self.gru = nn.GRU(size, config.hidden_size, config.layers, batch_first=True, dropout=between)
        self.output = nn.Linear(config.hidden_size, size)
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
        real_B_T = history_B_T != 0
        # The network starts at a row's first item: padding goes to the end, where nothing comes after it.
        places_T = torch.arange(history_B_T.shape[1], device=history_B_T.device)
        lengths_B_1 = real_B_T.sum(dim=1, keepdim=True)
        first_B_T = (places_T - lengths_B_1) % len(places_T)
        last_B_T = (places_T + lengths_B_1) % len(places_T)
        embedded_B_T_D = functional.embedding(history_B_T.gather(1, first_B_T), table, padding_idx=0)
        # Output embeddings begin small. As inputs they would hardly move the gates for tens of epochs.
        states_B_T_S, _ = self.gru(self.dropout(embedded_B_T_D * self.embedding_size**0.5))
        x_B_T_D = self.output(self.dropout(states_B_T_S))
        x_B_T_D = x_B_T_D.gather(1, last_B_T[..., None].expand_as(x_B_T_D))
        return x_B_T_D * real_B_T[..., None]
