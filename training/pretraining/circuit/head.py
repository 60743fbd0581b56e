"""One attention head, composed of what it matches and what it copies."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from models.errors import ConfigError


@dataclass
class Head:
    """An attention head in residual coordinates: rows are head dimensions, columns residual ones.

    Scores are sums of what `match` and `prefer` add, each in head dimensions of its own, so that terms do not mix.

    Attributes:
        size: of the head.
        width: of the residual stream.
    """

    size: int
    width: int
    query: torch.Tensor = field(init=False)
    query_bias: torch.Tensor = field(init=False)
    key: torch.Tensor = field(init=False)
    value: torch.Tensor = field(init=False)
    output: torch.Tensor = field(init=False)
    used: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.query, self.key, self.value, self.output = (torch.zeros(self.size, self.width) for _ in range(4))
        self.query_bias = torch.zeros(self.size)

    def match(self, query: torch.Tensor, key: torch.Tensor) -> None:
        """Add <query x_q, key x_k> to the score; both (n, width).

        Raises:
            ConfigError: so many dimensions are not left.
        """
        rows = slice(self.used, self.used + len(query))
        if rows.stop > self.size or query.shape != key.shape:
            raise ConfigError(f"heads of {self.size} dimensions are too small for the constructed initialisation")
        self.query[rows], self.key[rows] = query, key
        self.used += len(query)

    def prefer(self, key: torch.Tensor, strength: float) -> None:
        """Add strength * <key, x_k> to the score, whatever the query."""
        self.query_bias[self.used] = strength
        self.key[self.used] = key
        self.used += 1

    def copy(self, source: torch.Tensor, target: torch.Tensor, gain: float) -> None:
        """Read `source` (n, width) of what is attended and add it along `target` (n, width)."""
        self.value[: len(source)] = source
        self.output[: len(target)] = gain * target
