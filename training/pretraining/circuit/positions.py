"""The position code, and how heads look a distance back with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from models.scoring.opt_training import POSITION_OFFSET
from training.pretraining.circuit.head import Head

FASTEST, SLOWEST = 2.0, 0.01
"""Radians a token. The fastest tells neighbours apart (its period is 3 tokens), the slowest ends of prompts (628)."""


class PositionCode:
    """Cosines and sines of the position at geometrically spaced frequencies, 0 the fastest.

    Args:
        axes: (n, width) the residual directions that hold the code: n / 2 cosines, then n / 2 sines.
        strength: length of one cosine-and-sine pair.
    """

    def __init__(self, axes: torch.Tensor, strength: float) -> None:
        self.axes = axes
        self.strength = strength
        self.count = len(axes) // 2
        self._frequencies = torch.logspace(math.log10(FASTEST), math.log10(SLOWEST), self.count)

    @property
    def slow_half(self) -> range:
        """Frequencies by which near positions are preferred smoothly, without telling neighbours apart."""
        return range(self.count // 2, self.count)

    def table(self, positions: int) -> torch.Tensor:
        """The rows of OPT's position table for so many positions."""
        phase = torch.arange(positions + POSITION_OFFSET)[:, None] * self._frequencies
        return self.strength * torch.cat([torch.cos(phase), torch.sin(phase)], dim=1)

    def rows(self, frequencies: Sequence[int] | None = None) -> list[int]:
        """The dimensions of some frequencies, of all by default: cosines, then sines."""
        chosen = range(self.count) if frequencies is None else frequencies
        return [*chosen, *(self.count + index for index in chosen)]

    def turned(self, distance: float, rows: list[int], axes: torch.Tensor | None = None) -> torch.Tensor:
        """Positions coded along `axes`, at `rows` of the code, as they are `distance` positions back.

        A turn of each pair by distance * frequency, so that its inner product with a position's own code is largest
        where that position is `distance` back.
        """
        axes = self.axes[rows] if axes is None else axes
        cosines, sines = axes.chunk(2)
        angles = distance * self._frequencies[rows[: len(cosines)]][:, None]
        back = angles.cos() * cosines + angles.sin() * sines, angles.cos() * sines - angles.sin() * cosines
        return torch.cat(back)

    def without_start(self, start: torch.Tensor) -> torch.Tensor:
        """The position dimensions, but 0 at the start of the text, where heads look that have nothing to say.

        Without it every position whose head looks there would take up that position's code.
        """
        return self.axes - self.table(1)[POSITION_OFFSET][:, None] * start

    def look_back(self, head: Head, distance: int, strength: float, frequencies: Sequence[int] | None = None) -> None:
        """Let `head` attend `distance` positions back, by all frequencies or only some."""
        rows = self.rows(frequencies)
        head.match(strength * self.turned(distance, rows), strength * self.axes[rows])
