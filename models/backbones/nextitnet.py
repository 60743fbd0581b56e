"""NextItNet: dilated causal convolutions over a history (Yuan et al., WSDM 2019)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from models.backbones.base import Backbone, BackboneConfig


class NextItNetConfig(BackboneConfig):
    """Two residual blocks of kernels of 3 by default, which see 31 items.

    Attributes:
        kernel_size: items that a convolution sees.
        dilations: a residual block for each; its first convolution is dilated by it, its second by twice as much.
        dropout: on item embeddings; the paper has none.
    """

    kernel_size: int = Field(3, gt=1)
    dilations: tuple[int, ...] = Field((1, 4), min_length=1)
    dropout: float = Field(0.2, ge=0, lt=1)


class NextItNet(Backbone):
    """Item embeddings and residual blocks of two dilated causal convolutions each (section 3.3, figure 3a).

    The paper has a vector of each item for the input and another for the output. Here they are one, and as blocks add
    nothing below zero, a linear layer maps what they leave into its space; read, it is scaled as SASRec's is.
    """

    kind = "nextitnet"

    def __init__(self, config: NextItNetConfig) -> None:
        super().__init__(config)
        size = config.embedding_size
        self.items = nn.Embedding(config.num_items + 1, size, padding_idx=0)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(size, config.kernel_size, dilation) for dilation in config.dilations)
        self.output = nn.Linear(size, size)
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
        real_B_T_1 = (history_B_T != 0)[..., None]
        # What a block adds is normalised: unscaled, the item itself would hardly be heard beside it.
        embedded_B_T_D = functional.embedding(history_B_T, table, padding_idx=0) * self.embedding_size**0.5
        x_B_T_D = self.dropout(embedded_B_T_D) * real_B_T_1
        for block in self.blocks:
            x_B_T_D = block(x_B_T_D, real_B_T_1)
        outputs_B_T_D: torch.Tensor = self.output(x_B_T_D) * real_B_T_1
        return outputs_B_T_D


class Block(nn.Module):
    """`x + ReLU(LN(conv_2l(ReLU(LN(conv_l(x))))))`: two convolutions of dilations l and 2l, causal by padding."""

    def __init__(self, size: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        dilations = (dilation, 2 * dilation)
        self.convolutions = nn.ModuleList(nn.Conv1d(size, size, kernel_size, dilation=each) for each in dilations)
        self.norms = nn.ModuleList(nn.LayerNorm(size, eps=1e-8) for _ in dilations)
        self.margins = [each * (kernel_size - 1) for each in dilations]

    def forward(self, x_B_T_D: torch.Tensor, real_B_T_1: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to (B, T, d), zeros where `real_B_T_1` is False: padding is what is seen before the first item."""
        residual_B_T_D = x_B_T_D
        for convolution, norm, margin in zip(self.convolutions, self.norms, self.margins, strict=True):
            seen_B_D_T = functional.pad(x_B_T_D.transpose(1, 2), (margin, 0))
            x_B_T_D = functional.relu(norm(convolution(seen_B_D_T).transpose(1, 2))) * real_B_T_1
        return residual_B_T_D + x_B_T_D
