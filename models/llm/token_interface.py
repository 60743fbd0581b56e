"""How an LLM was taught to read injected tokens.

The embedded OPT is pre-trained on injected tokens of one fixed convention: `token = slot_type + coordinates @ basis`.
A user has coordinates u and w, an item z, y and p, each in a subspace of its own, and a candidate's logit is
`coupling * (<u, z> + <mean of the history's y, y> + p + w * s)`: what users like, what is like their history, what is
popular, and what is of a series that they know. s is 1 if a title of the history begins with the same two tokens as
the candidate's, 0 otherwise: the LLM finds it in the prompt. How much each counts is a matter of length: of u and z, of
y, of p and of w. The convention ships beside the weights, so that stage 2 can start from it. Other LLMs have none and
learn the projections from scratch, as in the paper.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.errors import ConfigError

INTERFACE_FILE = "interface.safetensors"


@dataclass(frozen=True)
class TokenInterface:
    """The convention for injected tokens.

    Attributes:
        slot_types: (3, d_tok) one vector per `models.prompts.layout.Slot`.
        user_basis: (k, d_tok) rows span the user subspace.
        item_basis: (k, d_tok) rows span the item subspace; history and candidates share it.
        similarity_basis: (m, d_tok) rows span the subspace in which candidates are compared with the history.
        popularity_axis: (d_tok,) an item's own weight.
        series_axis: (d_tok,) a user's weight of series.
        coupling: the constant of the law.
    """

    slot_types: torch.Tensor
    user_basis: torch.Tensor
    item_basis: torch.Tensor
    similarity_basis: torch.Tensor
    popularity_axis: torch.Tensor
    series_axis: torch.Tensor
    coupling: float

    def user_tokens(self, coordinates: torch.Tensor, series_weights: torch.Tensor) -> torch.Tensor:
        """Tokens (..., d_tok) of users at u (..., k) and w (...), without their slot type."""
        return coordinates @ self.user_basis + series_weights[..., None] * self.series_axis

    def item_tokens(
        self, coordinates: torch.Tensor, similarity: torch.Tensor, popularity: torch.Tensor
    ) -> torch.Tensor:
        """Tokens (..., d_tok) of items at z (..., k), y (..., m) and p (...), without their slot type."""
        tokens = coordinates @ self.item_basis + similarity @ self.similarity_basis
        return tokens + popularity[..., None] * self.popularity_axis

    def to(self, device: torch.device | str) -> TokenInterface:
        """The same convention on another device."""
        return TokenInterface(
            **{name: tensor.to(device) for name, tensor in self._tensors().items()}, coupling=self.coupling
        )

    def is_close(self, other: TokenInterface) -> bool:
        """Whether an LLM trained with one can read tokens of the other."""
        return self.coupling == other.coupling and all(
            mine.shape == others.shape and torch.allclose(mine, others, atol=1e-4)
            for mine, others in zip(self._tensors().values(), other._tensors().values(), strict=True)
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it."""
        digest = hashlib.sha256(repr(self.coupling).encode())
        for tensor in self._tensors().values():
            digest.update(tensor.float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "coupling"}

    def save(self, directory: Path) -> None:
        """Write the convention beside an LLM's weights."""
        tensors = self._tensors() | {"coupling": torch.tensor(self.coupling)}
        save_file(
            {name: tensor.float().contiguous() for name, tensor in tensors.items()},
            directory / INTERFACE_FILE,
        )

    @classmethod
    def load(cls, directory: Path) -> TokenInterface | None:
        """The convention that ships with the LLM in `directory`, or None.

        Raises:
            ConfigError: the file there is of another release.
        """
        path = directory / INTERFACE_FILE
        if not path.is_file():
            return None
        tensors = load_file(path)
        names = {field.name for field in fields(cls)}
        if missing := names - tensors.keys():
            raise ConfigError(f"{path}: no {', '.join(sorted(missing))}: made by another release, train the LLM again")
        return cls(**{name: tensors[name] for name in names - {"coupling"}}, coupling=tensors["coupling"].item())
