"""From the state in which an LLM is after a user's history to a user vector in CF space.

As in two-tower retrieval, where one tower is an LLM (LLM-SRec distils such a representation from a sequential
recommender): the LLM stays frozen, the head alone is trained.

Axes: B users, D CF size d, H the LLM's hidden size.
"""

from __future__ import annotations

import torch
from torch import nn


class UserHead(nn.Module):
    """A two-layer MLP on standardised states: linear, LayerNorm, GELU, dropout, linear.

    Args:
        state_size: H.
        hidden_size: of the layer between.
        user_size: d.
        dropout: in training, of that layer.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, state_size: int, hidden_size: int, user_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(state_size))
        self.register_buffer("std", torch.ones(state_size))
        self.inner = nn.Linear(state_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, user_size)

    @classmethod
    def of_weights(cls, weights: dict[str, torch.Tensor]) -> UserHead:
        """A trained head, frozen.

        Raises:
            RuntimeError, KeyError: these are no weights of one.
        """
        (hidden_size, state_size), user_size = weights["inner.weight"].shape, len(weights["output.bias"])
        head = cls(state_size, hidden_size, user_size)
        head.load_state_dict(weights)
        return head.eval().requires_grad_(False)

    def standardise(self, states: torch.Tensor) -> None:
        """Take mean and spread of every coordinate from a sample (n, H) of the states to come.

        An LLM's states have a few coordinates that are far larger than all others, whatever it reads.
        """
        self.mean.copy_(states.mean(dim=0))
        self.std.copy_(states.std(dim=0, unbiased=False).clamp_min(1e-6))

    def forward(self, states_B_H: torch.Tensor) -> torch.Tensor:
        """(B, d) user vectors, whose inner products with item vectors rank."""
        inner = self.inner((states_B_H - self.mean) / self.std)
        return self.output(self.dropout(nn.functional.gelu(self.norm(inner))))
