"""Any sequential backbone over items that are their frozen text vectors through a linear adapter: `E_i = A q_i`
(LLM2Rec section 4.1).

Axes: B users, T time, N items, M some of them, D embedding size, Q text size.
"""

from __future__ import annotations

import torch
from torch import nn

from models.backbones import Backbone


class Adapted(Backbone):
    """A backbone whose own item vectors are never read.

    Args:
        network: makes users of items; of any kind that reads histories alone.
        texts_N_Q: (N+1, Q) q, of which row 0 counts as zeros.
    """

    kind = "adapted"
    reads_texts = True
    texts: torch.Tensor

    def __init__(self, network: Backbone, texts_N_Q: torch.Tensor) -> None:
        super().__init__(network.config.model_copy(update={"num_items": len(texts_N_Q) - 1}))
        self.network = network
        self.adapter = nn.Linear(texts_N_Q.shape[1], network.embedding_size, bias=False)
        nn.init.xavier_normal_(self.adapter.weight)
        texts = texts_N_Q.clone()
        texts[0] = 0.0
        self.register_buffer("texts", texts, persistent=False)

    @property
    def item_vectors(self) -> torch.Tensor:
        """E: (N+1, d), row 0 zeros."""
        placed: torch.Tensor = self.adapter(self.texts)
        return placed

    def vectors_of(self, items_M: torch.Tensor) -> torch.Tensor:
        """As `Backbone.vectors_of`."""
        return self.vectors_of_texts(self.texts[items_M])

    def vectors_of_texts(self, text_vectors_M_Q: torch.Tensor) -> torch.Tensor:
        """As `Backbone.vectors_of_texts`: A q."""
        placed: torch.Tensor = self.adapter(text_vectors_M_Q)
        return placed

    def outputs(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,  # noqa: ARG002 - users are known by their histories
    ) -> torch.Tensor:
        """As `Backbone.outputs`."""
        return self.network.outputs(history_B_T, self.item_vectors if item_vectors is None else item_vectors)
