"""The port of collaborative-filtering backbones: anything that gives item vectors E and user vectors x_u.

Axes: B users, T time, D embedding size, N items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from models.batching import batches_of_like_length
from models.catalogue import PADDING_ITEM
from models.config import Config


class BackboneConfig(Config):
    """What every backbone has.

    Attributes:
        num_items: N, the items that it has vectors for.
        embedding_size: d.
        max_length: only this many of the latest items of a history are read.
    """

    num_items: int = Field(gt=0)
    embedding_size: int = Field(50, gt=0)
    max_length: int = Field(50, gt=0)


class Backbone(nn.Module, ABC):
    """A recommender whose logit for item i after a history is `x_u . E_i`.

    Most know users by their histories alone; one that `reads_users` has vectors of those that it was trained on.
    Histories are item numbers, padded with 0 on the left, latest item last. Padding never changes a result.
    """

    kind: ClassVar[str]
    """Its name in the registry."""
    reads_texts: ClassVar[bool] = False
    """Whether items have vectors by their texts, so that those without training interactions have some too."""
    reads_users: ClassVar[bool] = False
    """Whether who a user is changes x_u, and not the history alone."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def embedding_size(self) -> int:
        """d."""
        return self.config.embedding_size

    @property
    def num_items(self) -> int:
        """N."""
        return self.config.num_items

    @property
    def max_length(self) -> int:
        """How many of the latest items it reads."""
        return self.config.max_length

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    @abstractmethod
    def item_vectors(self) -> torch.Tensor:
        """E: (N+1, d), row 0 zeros."""

    def vectors_of(self, items_M: torch.Tensor) -> torch.Tensor:
        """E (M, d) of some items, as training wants them: with gradients, and with dropout in training mode.

        Args:
            items_M: int64, each item once, or dropout treats its places differently.
        """
        return functional.embedding(items_M, self.item_vectors)

    def vectors_of_texts(self, text_vectors_M_T: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002
        """E (M, d) of items that are known by their texts alone; None from a backbone that reads none.

        Args:
            text_vectors_M_T: (M, d_T) by the text encoder of the backbone's config, and words beside if it reads any.
        """
        return None

    def with_texts(self, before_N_T: torch.Tensor, after_N_T: torch.Tensor) -> Backbone:  # noqa: ARG002
        """The same backbone, frozen, where the items' texts are other ones; itself if it reads none.

        Args:
            before_N_T: (N+1, d_T) by the text encoder of the backbone's config, of the texts that it was trained with.
            after_N_T: (N+1, d_T) likewise, of those that are to take their places.
        """
        return self

    def places(self, trained_N: torch.Tensor) -> torch.Tensor:
        """(N+1,) bool: the items whose vectors mean something; what the others are must be told by their texts.

        Args:
            trained_N: (N+1,) bool: the items with training interactions.
        """
        return torch.ones_like(trained_N) if self.reads_texts else trained_N

    def weights(self) -> dict[str, torch.Tensor]:
        """The state dict to save: all that a frozen backbone needs."""
        return self.state_dict()

    @abstractmethod
    def outputs(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The user's vector after every position, from the items up to and including it.

        Args:
            history_B_T: int64, at most `max_length` long.
            item_vectors: (N'+1, d) a table to read items from instead of its own, such as one where cold items
                have vectors decoded from their text.
            users_B: int64, each user's number in training, 1..U, or 0 for somebody unknown: for backbones that read
                users, such as NCF; all unknown if not given.

        Returns:
            (B, T, d), zeros at padding.
        """

    def represent(
        self,
        history_B_T: torch.Tensor,
        item_vectors: torch.Tensor | None = None,
        users_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x_u: (B, d), the output after the last position; zeros for an empty history.

        Args:
            history_B_T: int64, any length; only the last `max_length` items are read.
            item_vectors: as in `outputs`.
            users_B: as in `outputs`.
        """
        return self.outputs(history_B_T[:, -self.max_length :], item_vectors, users_B)[:, -1]


def pad_histories(histories: Sequence[np.ndarray], max_length: int) -> np.ndarray:
    """(B, T) int64: the last `max_length` items of each history, padded on the left to the longest of them."""
    width = max(1, min(max_length, max((len(items) for items in histories), default=0)))
    padded = np.full((len(histories), width), PADDING_ITEM, dtype=np.int64)
    for row, items in enumerate(histories):
        if len(items):
            recent = items[-width:]
            padded[row, -len(recent) :] = recent
    return padded


@torch.no_grad()
def represent_all(
    backbone: Backbone,
    histories: Sequence[np.ndarray],
    item_vectors: torch.Tensor | None = None,
    users: np.ndarray | None = None,
    batch_size: int = 1024,
) -> torch.Tensor:
    """x_u (U, d) of many histories, in batches of like length. Other arguments as in `Backbone.represent`."""
    device = backbone.device
    # Once, not once a batch: some backbones compute it.
    item_vectors = backbone.item_vectors if item_vectors is None else item_vectors
    result = torch.zeros(len(histories), backbone.embedding_size, device=device)
    for rows in batches_of_like_length([len(items) for items in histories], most_rows=batch_size):
        padded = torch.from_numpy(pad_histories([histories[row] for row in rows], backbone.max_length)).to(device)
        known = None if users is None else torch.from_numpy(users[rows]).to(device)
        result[torch.from_numpy(rows).to(device)] = backbone.represent(padded, item_vectors, known)
    return result
