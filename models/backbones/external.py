"""A backbone from elsewhere: vectors that another library learned, and perhaps a program that reads histories.

Axes: B users, T time, D embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from models.backbones.base import Backbone, BackboneConfig
from models.backbones.program import Program, load_program


class ExternalConfig(BackboneConfig):
    """Sizes of what was imported.

    Attributes:
        num_users: U, the users that may have vectors.
        program_size: bytes of the program that reads histories, TorchScript or ONNX; 0 without one.
    """

    num_users: int = Field(0, ge=0)
    program_size: int = Field(0, ge=0)


class External(Backbone):
    """Vectors of items, and of users by one of two ways.

    Without a program, users have vectors, and those who have none are `x_u = A mean E` of their history, with A fitted
    when the vectors were imported. With a program, everybody is what it makes of the vectors of the history's items:

        program(vectors (B, T, d) float32, real (B, T) bool) -> (B, d)

    where `real` is False at padding, which stands on the left. It travels as bytes among the weights.
    """

    kind = "external"
    reads_users = True
    placed: torch.Tensor
    program: torch.Tensor

    def __init__(self, config: ExternalConfig) -> None:
        super().__init__(config)
        size = config.embedding_size
        self.items = nn.Embedding(config.num_items + 1, size, padding_idx=0)
        self.users = nn.Embedding(config.num_users + 1, size)
        self.fold_in = nn.Linear(size, size, bias=False)
        self.register_buffer("placed", torch.ones(config.num_items + 1, dtype=torch.bool))
        self.register_buffer("program", torch.zeros(config.program_size, dtype=torch.uint8))
        self._loaded: tuple[torch.device, Program] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies load the program anew: a session of ONNX Runtime cannot be copied."""
        return {**self.__dict__, "_loaded": None}

    @property
    def item_vectors(self) -> torch.Tensor:
        """E: (N+1, d), row 0 zeros."""
        return self.items.weight

    def places(self, trained_N: torch.Tensor) -> torch.Tensor:
        """As `Backbone.places`: the items that came with a vector, trained on here or not."""
        return self.placed.to(trained_N.device)

    def outputs(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `Backbone.outputs`; a program is asked about every position in turn."""
        if len(self.program):
            parts = [self._read(history_B_T[:, : end + 1], item_vectors) for end in range(history_B_T.shape[1])]
            return torch.stack(parts, dim=1)
        table = self.item_vectors if item_vectors is None else item_vectors
        real_B_T_1 = (history_B_T != 0)[..., None]
        met_B_T_D = functional.embedding(history_B_T, table) * real_B_T_1
        x_B_T_D = self.fold_in(met_B_T_D.cumsum(dim=1) / real_B_T_1.cumsum(dim=1).clamp_min(1))
        if users_B is not None and self.users.num_embeddings > 1:
            own_B_D = self.users(users_B)
            known_B = (users_B != 0) & own_B_D.any(dim=1)
            x_B_T_D = torch.where(known_B[:, None, None], own_B_D[:, None], x_B_T_D)
        return x_B_T_D * real_B_T_1

    def represent(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `Backbone.represent`."""
        if len(self.program):
            return self._read(history_B_T[:, -self.max_length :], item_vectors)
        return super().represent(history_B_T, item_vectors, users_B)

    def _read(self, history_B_T: torch.Tensor, item_vectors: torch.Tensor | None) -> torch.Tensor:
        """(B, d) what the program makes of whole histories; zeros of empty ones."""
        real_B_1 = (history_B_T != 0).any(dim=1, keepdim=True)
        return torch.where(real_B_1, self.said(history_B_T, item_vectors).to(self.item_vectors.dtype), 0.0)

    def said(self, history_B_T: torch.Tensor, item_vectors: torch.Tensor | None = None) -> Any:
        """What the program makes of histories, as it is: (B, d), if it does as it must."""
        table = self.item_vectors if item_vectors is None else item_vectors
        real_B_T = history_B_T != 0
        vectors_B_T_D = functional.embedding(history_B_T, table) * real_B_T[..., None]
        return self.load_program()(vectors_B_T_D, real_B_T)

    def load_program(self) -> Program:
        """The program where the weights are, loaded once.

        Raises:
            ConfigError: ONNX Runtime is wanted and not installed.
            RuntimeError: it cannot be read.
        """
        device = self.device
        if self._loaded is None or self._loaded[0] != device:
            self._loaded = device, load_program(self.program.cpu().numpy().tobytes(), device)
        return self._loaded[1]
