"""SASRec whose items are known by their texts as well as by their ids, as in MoRec (Yuan et al., SIGIR 2023) and
UniSRec (Hou et al., KDD 2022), with both at once: `E_i = id_i + A q_i`.

Axes: N items, M some of them, D embedding size, Q text size.
"""

from __future__ import annotations

import copy

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from models.backbones.sasrec import SASRec, SASRecConfig


class HybridConfig(SASRecConfig):
    """What SASRec has, and which text vectors q are read.

    Attributes:
        text_encoder: "embedded", a hub name or a path of the sentence-transformers model that makes q.
        max_text_tokens: longer item texts are cut.
        text_categories: item texts name the item's categories, beside title and description.
        word_directions: of the words (`models.alignment.words`) that stand beside the encoder's vectors; 0 for none.
        text_size: d_T, words included; training takes it from what was read.
        id_dropout: share of items that a training step knows by their texts alone, drawn anew each step, so that the
            adapter learns to place items without an id.
    """

    text_encoder: str = "embedded"
    max_text_tokens: int = Field(64, gt=2)
    text_categories: bool = True
    word_directions: int = Field(0, ge=0)
    text_size: int = Field(384, gt=0)
    id_dropout: float = Field(0.3, ge=0, le=1)


class Hybrid(SASRec):
    """SASRec over `E_i = id_i + A q_i`; items without training interactions have `A q_i` alone.

    In training, once it was given `read_texts`, item vectors are computed. What is saved is their table and the
    adapter: a loaded one looks its items up, as SASRec does, and places new ones by `vectors_of_texts`.
    """

    kind = "hybrid"
    reads_texts = True
    texts: torch.Tensor | None
    trained: torch.Tensor | None

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.id_dropout = config.id_dropout
        self.adapter = nn.Linear(config.text_size, config.embedding_size, bias=False)
        nn.init.xavier_normal_(self.adapter.weight)
        self.register_buffer("texts", None, persistent=False)
        self.register_buffer("trained", None, persistent=False)

    def read_texts(self, texts_N_Q: torch.Tensor, trained_N: torch.Tensor) -> None:
        """Take up the texts, for training.

        Args:
            texts_N_Q: (N+1, d_T) q, of which row 0 counts as zeros.
            trained_N: (N+1,) bool: the items with training interactions, which have ids.
        """
        texts, trained = texts_N_Q.to(self.device, copy=True), trained_N.to(self.device, copy=True)
        texts[0], trained[0] = 0.0, False
        self.texts, self.trained = texts, trained

    @property
    def item_vectors(self) -> torch.Tensor:
        """E: (N+1, d), row 0 zeros."""
        if self.texts is None:
            return self.items.weight
        return self.vectors_of(torch.arange(self.num_items + 1, device=self.device))

    def vectors_of(self, items_M: torch.Tensor) -> torch.Tensor:
        """As `Backbone.vectors_of`; in training mode some are without their ids."""
        ids_M_D = functional.embedding(items_M, self.items.weight)
        if self.texts is None or self.trained is None:
            return ids_M_D
        kept_M = self.trained[items_M]
        if self.training and self.id_dropout:
            kept_M = kept_M & (torch.rand(len(items_M), device=self.device) >= self.id_dropout)
        by_text_M_D: torch.Tensor = self.adapter(self.texts[items_M])
        return ids_M_D * kept_M[:, None] + by_text_M_D

    def vectors_of_texts(self, text_vectors_M_Q: torch.Tensor) -> torch.Tensor:
        """As `Backbone.vectors_of_texts`: A q."""
        placed: torch.Tensor = self.adapter(text_vectors_M_Q)
        return placed

    @torch.no_grad()
    def with_texts(self, before_N_T: torch.Tensor, after_N_T: torch.Tensor) -> Hybrid:
        """As `Backbone.with_texts`: id_i + A q_i with other q; what an item's id says stays."""
        changed = copy.deepcopy(self).requires_grad_(False)
        moved_N_D = self.adapter((after_N_T - before_N_T).to(self.device))
        moved_N_D[0] = 0.0
        changed.items.weight += moved_N_D
        return changed

    @torch.no_grad()
    def weights(self) -> dict[str, torch.Tensor]:
        """The state dict with E, as it is without dropout, in the place of the ids."""
        was_training = self.training
        self.eval()
        weights = {**self.state_dict(), "items.weight": self.item_vectors.detach()}
        self.train(was_training)
        return weights
