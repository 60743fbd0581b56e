"""NCF: neural collaborative filtering (He et al., WWW 2017), as far as an inner product can hold it.

NeuMF scores a user and an item by two branches. GMF, `h . (p_u * q_i)`, is an inner product as it stands: of `h * p_u`
with `q_i`. Its MLP reads user and item side by side and is none, so that no frozen `x_u` and `E_i` say what it does,
which is all that the stages after a backbone, retrieval and serving ask for. Here each side has an MLP of its own, and
they meet in an inner product:

    x_u = [h * p_u, f(p'_u)]    E_i = [q_i, g(q'_i)]    score = x_u . E_i

Rendle et al. (RecSys 2020) found inner products no worse than MLPs of both.

Axes: B users, T time, M items, D embedding size.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from models.backbones.base import Backbone, BackboneConfig


class NCFConfig(BackboneConfig):
    """Half of the embedding size is GMF's, the other half the MLPs'.

    Attributes:
        num_users: U, the users that it has vectors for; training takes it from the data.
        embedding_size: d; 2 at least.
        hidden_size: of the MLPs, and of the embeddings p' and q' that they read.
        dropout: in the MLPs and on user vectors.
        user_dropout: share of users that a training step treats as unknown, so that the map learns by which unknown
            users are known.
    """

    num_users: int = Field(0, ge=0)
    embedding_size: int = Field(50, gt=1)
    hidden_size: int = Field(64, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    user_dropout: float = Field(0.1, ge=0, lt=1)


class NCF(Backbone):
    """A vector a user: x_u of somebody known in training does not depend on the history, as long as there is one.

    What a known user does later changes nothing until the next training. Unknown users, and those with too little in
    training to have been learned from, are `x_u = A mean E` of their history; A is learned beside NCF (`user_dropout`).
    """

    kind = "ncf"
    reads_users = True

    def __init__(self, config: NCFConfig) -> None:
        super().__init__(config)
        self.user_dropout = config.user_dropout
        wide = config.embedding_size // 2
        sizes = config.embedding_size - wide, config.hidden_size
        self.items, self.deep_items = (nn.Embedding(config.num_items + 1, size) for size in sizes)
        self.users, self.deep_users = (nn.Embedding(config.num_users + 1, size) for size in sizes)
        self.mixing = nn.Parameter(torch.ones(sizes[0]))
        self.item_tower, self.user_tower = (_tower(config.hidden_size, wide, config.dropout) for _ in range(2))
        self.fold_in = nn.Linear(config.embedding_size, config.embedding_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        # A user who is never learned from stays at zero, and so is told from those who are.
        nn.init.zeros_(self.users.weight)

    @property
    def item_vectors(self) -> torch.Tensor:
        """E: (N+1, d), row 0 zeros."""
        return self.vectors_of(torch.arange(self.num_items + 1, device=self.device))

    def vectors_of(self, items_M: torch.Tensor) -> torch.Tensor:
        """As `Backbone.vectors_of`: [q_i, g(q'_i)]."""
        vectors_M_D = torch.cat([self.items(items_M), self.item_tower(self.deep_items(items_M))], dim=1)
        return vectors_M_D * (items_M != 0)[:, None]

    def outputs(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `Backbone.outputs`."""
        table = self.item_vectors if item_vectors is None else item_vectors
        real_B_T_1 = (history_B_T != 0)[..., None]
        # Without gradients to E: A adapts to NCF, not NCF to it.
        met_B_T_D = functional.embedding(history_B_T, table.detach()) * real_B_T_1
        mean_B_T_D = met_B_T_D.cumsum(dim=1) / real_B_T_1.cumsum(dim=1).clamp_min(1)
        x_B_T_D = self.fold_in(mean_B_T_D)
        if users_B is not None:
            x_B_D, known_B = self._users(users_B)
            x_B_T_D = torch.where(known_B[:, None, None], x_B_D[:, None], x_B_T_D)
        return self.dropout(x_B_T_D) * real_B_T_1

    def _users(self, users_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[h * p_u, f(p'_u)] (B, d), and whether each user was learned from (B,), or is learned from now."""
        wide_B_D = self.users(users_B)
        known_B = users_B != 0
        if self.training:
            known_B = known_B & (torch.rand(len(users_B), device=users_B.device) >= self.user_dropout)
        else:
            known_B = known_B & wide_B_D.any(dim=1)
        x_B_D = torch.cat([self.mixing * wide_B_D, self.user_tower(self.deep_users(users_B))], dim=1)
        return x_B_D, known_B


def _tower(size: int, output_size: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, output_size))
