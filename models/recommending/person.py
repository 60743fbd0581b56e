"""Somebody as a bundle sees them: what retrieval and ranking start from.

Axes: T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.bundle.catalogue_model import CatalogueModel
from models.rankers.base import Audience


@dataclass(frozen=True)
class Person:
    """A history, and what backbones make of it.

    Attributes:
        vector: (d,) x_u.
        history: (T,) item numbers, oldest first.
        second: (d_2,) what the bundle's second backbone makes of the history; None where it has none.
    """

    vector: torch.Tensor
    history: np.ndarray
    second: torch.Tensor | None = None

    @classmethod
    def of_values(cls, values: torch.Tensor, history: np.ndarray, size: int) -> Person:
        """Who has these `values`, d of which are x_u.

        Args:
            values: (d + d_2,) see `values`.
            history: item numbers, oldest first.
            size: d.
        """
        return cls(values[:size], history, values[size:] if len(values) > size else None)

    @property
    def values(self) -> torch.Tensor:
        """(d + d_2,) the vectors one after the other: all that is to be kept, as the history is known."""
        return self.vector if self.second is None else torch.cat([self.vector, self.second])

    @property
    def audience(self) -> Audience:
        """The person alone, whom no ranker knows by name."""
        return Audience([""], [self.history], self.vector[None], None if self.second is None else self.second[None])


def persons(
    model: CatalogueModel, histories: Sequence[np.ndarray], user_ids: Sequence[str] | None = None
) -> list[Person]:
    """Some users with a history each, with vectors in float32.

    Args:
        model: whose backbones read them.
        histories: of item numbers, oldest first.
        user_ids: who they are, for backbones with a vector a user; nobody known if not given.
    """
    vectors, seconds = model.user_vectors(histories, user_ids).float(), model.second_vectors(histories)
    return [
        Person(vector, history, None if seconds is None else seconds[row].float())
        for row, (vector, history) in enumerate(zip(vectors, histories, strict=True))
    ]
