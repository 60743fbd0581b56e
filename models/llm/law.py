"""The token law: what an LLM with a `TokenInterface` was taught to rank by, in one place.

A candidate's logit is `coupling * (<u, z> + <mean y of the history, y> + p + w * s)`, see
`models.llm.token_interface`. All but s stand in the injected tokens; s, whether a title of the history begins as the
candidate's does, the LLM finds in the titles.

Axes: E users, C candidates, N items, D CF size, J joint size, H token size, Y an item's coordinates, Y1 a user's, m of
similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from models.alignment.projection import TokenProjector
from models.errors import ConfigError
from models.llm.token_interface import TokenInterface
from models.prompts.layout import TokenIds
from models.prompts.titles import TitleTokens

LAW_FILE = "law.safetensors"
_BEGINNING = 2
_NO_TOKEN = -1


@dataclass(frozen=True)
class TokenLaw:
    """What it takes to read a catalogue's injected tokens without the LLM that was taught to.

    Attributes:
        interface: the LLM's.
        beginnings: (N+1, 2) int64 the tokens that each title begins with, -1 where it has fewer.
        shown: how many of the latest items of a history a prompt shows.
    """

    interface: TokenInterface
    beginnings: np.ndarray
    shown: int

    @classmethod
    def of(cls, interface: TokenInterface, titles: TitleTokens, shown: int) -> TokenLaw:
        """The law for titles as a prompt has them.

        Args:
            interface: the LLM's.
            titles: of all items, padding first.
            shown: see `shown`.
        """
        beginnings = np.full((len(titles), _BEGINNING), _NO_TOKEN, dtype=np.int64)
        for item in range(len(titles)):
            tokens = titles[item][:_BEGINNING]
            beginnings[item, : len(tokens)] = tokens
        return cls(interface, beginnings, shown)

    def with_titles_of(self, order: np.ndarray) -> TokenLaw:
        """The same with the titles of other items, in `order` (N+1,)."""
        return replace(self, beginnings=self.beginnings[order])

    @cached_property
    def _series(self) -> np.ndarray:
        """(N+1,) a number for each beginning."""
        return np.unique(self.beginnings, axis=0, return_inverse=True)[1].reshape(-1)

    def series(self, shown: Sequence[np.ndarray], items_E_C: np.ndarray) -> np.ndarray:
        """(E, C) `series_table` of the items shown to E users, by what is kept here."""
        table_E_C = np.zeros(items_E_C.shape)
        for row, (history, items) in enumerate(zip(shown, items_E_C, strict=True)):
            table_E_C[row] = np.isin(self._series[items], self._series[history])
        return table_E_C

    def save(self, directory: Path) -> None:
        """Write it into a bundle."""
        self.interface.save(directory)
        tensors = {"beginnings": torch.from_numpy(self.beginnings), "shown": torch.tensor(self.shown)}
        save_file(tensors, directory / LAW_FILE)

    @classmethod
    def load(cls, directory: Path) -> TokenLaw | None:
        """The one in a bundle, if there is one.

        Raises:
            ConfigError: it is incomplete or of another release.
        """
        path = directory / LAW_FILE
        if not path.is_file():
            return None
        tensors, interface = load_file(path), TokenInterface.load(directory)
        if interface is None:
            raise ConfigError(f"{path} has no interface beside it")
        return cls(interface, tensors["beginnings"].numpy(), int(tensors["shown"]))


def in_series(history: Sequence[TokenIds], candidates: Sequence[TokenIds]) -> np.ndarray:
    """(C,) 1.0 where a title of the history begins with the same two tokens as the candidate's, 0.0 elsewhere.

    A title ends with a token of its own, so two titles of a single token are only alike if they are equal.

    Args:
        history: tokens of the titles shown, as they stand in the prompt.
        candidates: tokens of the candidates' titles.
    """
    known = {_beginning(title) for title in history}
    return np.asarray([float(_beginning(title) in known) for title in candidates])


def series_table(titles: TitleTokens, histories: Sequence[np.ndarray], items_E_C: np.ndarray) -> np.ndarray:
    """(E, C) `in_series` of candidates `items_E_C` with E histories of item numbers."""
    table_E_C = np.zeros(items_E_C.shape)
    for row, (history, items) in enumerate(zip(histories, items_E_C, strict=True)):
        table_E_C[row] = in_series(titles.of(history), titles.of(items))
    return table_E_C


def _beginning(title: TokenIds) -> tuple[int | None, ...]:
    return tuple([*title[:_BEGINNING], None][:_BEGINNING])


class ExactReader:
    """Reads projected tokens by an interface's law, as an LLM would that made no mistake.

    Args:
        projector: makes the tokens.
        interface: the law.
    """

    def __init__(self, projector: TokenProjector, interface: TokenInterface) -> None:
        self._projector = projector
        self._coupling = interface.coupling
        self._user_axes, self._series_axis, self._item_axes, self._similarity_axes, self._popularity_axis = (
            torch.linalg.pinv(basis)
            for basis in (
                interface.user_basis,
                interface.series_axis[None],
                interface.item_basis,
                interface.similarity_basis,
                interface.popularity_axis[None],
            )
        )

    def users(self, users_E_D: torch.Tensor, joint_N_2J: torch.Tensor, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """(E, Y1) what prompts say of the users: u, the mean y of the items shown, 1 for p, and w; Y1 = k + m + 2.

        Args:
            users_E_D: x_u.
            joint_N_2J: joint embeddings of all items, by number.
            histories: E arrays of the items shown.
        """
        return self.users_of(users_E_D, self.items(joint_N_2J), histories)

    def users_of(
        self, users_E_D: torch.Tensor, items_N_Y: torch.Tensor, histories: Sequence[np.ndarray]
    ) -> torch.Tensor:
        """`users` with `items` at hand."""
        users_E_H = self._projector.user(users_E_D)
        size = self._similarity_axes.shape[1]
        means_E_m = history_means(items_N_Y[:, -1 - size : -1], histories)
        ones_E_1 = means_E_m.new_ones(len(means_E_m), 1)
        return torch.cat([users_E_H @ self._user_axes, means_E_m, ones_E_1, users_E_H @ self._series_axis], dim=1)

    def items(self, joint_N_2J: torch.Tensor) -> torch.Tensor:
        """(N, Y) z, y and p; Y = k + m + 1."""
        axes = torch.cat([self._item_axes, self._similarity_axes, self._popularity_axis], dim=1)
        return self._projector.item(joint_N_2J) @ axes

    def logits(
        self, users_E_Y1: torch.Tensor, items_E_C_Y: torch.Tensor, series_E_C: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(E, C) the law, for what `users` and `items` give.

        Args:
            users_E_Y1: the users.
            items_E_C_Y: their candidates, or (C, Y) the same for all.
            series_E_C: 1 for candidates of a series that the history holds; none by default.
        """
        logits_E_C = (items_E_C_Y @ users_E_Y1[:, :-1, None]).squeeze(2)
        if series_E_C is not None:
            logits_E_C = logits_E_C + users_E_Y1[:, -1:] * series_E_C
        return self._coupling * logits_E_C

    def logits_of_all(
        self, users_E_Y1: torch.Tensor, items_N_Y: torch.Tensor, series_E_N: torch.Tensor
    ) -> torch.Tensor:
        """(E, N) the law, of the same items (N, Y) for all users."""
        return self._coupling * (users_E_Y1[:, :-1] @ items_N_Y.T + users_E_Y1[:, -1:] * series_E_N)


def history_means(similarities_N_m: torch.Tensor, histories: Sequence[np.ndarray]) -> torch.Tensor:
    """(E, m) mean y of each history; 0 without one."""
    means_E_m = similarities_N_m.new_zeros(len(histories), similarities_N_m.shape[1])
    for row, items in enumerate(histories):
        if len(items):
            means_E_m[row] = similarities_N_m[items.tolist()].mean(dim=0)
    return means_E_m
