"""Bring your own: what another library learned becomes a backbone, in the place of training one.

Axes: N items, U users, D embedding size, B users of a batch.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch.nn import functional

from models.backbones import represent_all
from models.backbones.external import External, ExternalConfig
from models.config import Config, explained
from models.errors import ConfigError
from training.backbones.config import BackboneTrainingConfig
from training.backbones.vectors import Vectors, read_vectors
from training.data.splits import SequenceSplit

RIDGE = 1e-3
"""Of the map from histories to user vectors, as a share of the mean square of its inputs."""
TOLERANCE = 1e-4
USERS = 33
"""Of the batch that a program is tried with: more than were traced, most likely."""


class ExternalSource(Config):
    """`settings` of the kind `external`: the files to import.

    Attributes:
        items: vectors of items; see `training.backbones.vectors`.
        users: vectors of users; those without are told by the items of their history.
        encoder: a program, TorchScript or ONNX, as in `models.backbones.external`, that tells users by their history.
        max_length: only this many of the latest items of a history are read.
        complete: whether every item with training interactions must have a vector; others are told by their texts.
    """

    items: Path
    users: Path | None = None
    encoder: Path | None = None
    max_length: int = Field(50, gt=0)
    complete: bool = True

    @model_validator(mode="after")
    def _one_way(self) -> ExternalSource:
        if self.users is not None and self.encoder is not None:
            raise ValueError("give 'users' or 'encoder': with both there would be two vectors of a user")
        return self

    @classmethod
    def of(cls, settings: dict[str, Any]) -> ExternalSource:
        """From a recipe's `settings`.

        Raises:
            ConfigError: a key is missing, unknown or wrong.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise ConfigError(f"backbone 'external': {explained(error, cls)}") from error

    @property
    def files(self) -> dict[str, Path]:
        """By what they are."""
        files = {"items": self.items, "users": self.users, "encoder": self.encoder}
        return {name: path for name, path in files.items() if path is not None}


def external_inputs(config: BackboneTrainingConfig) -> dict[str, str]:
    """SHA-256 of the files that a backbone of the kind `external` is made from; empty for other kinds.

    Raises:
        ConfigError: a file is missing.
    """
    if not config.is_external:
        return {}
    try:
        files = ExternalSource.of(config.settings).files.items()
        return {f"backbone {name}": hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files}
    except OSError as error:
        raise ConfigError(f"backbone 'external': {error.filename}: {error.strerror}") from error


def import_backbone(split: SequenceSplit, source: ExternalSource, device: str = "cpu") -> External:
    """A frozen backbone of imported vectors.

    Raises:
        ConfigError: a file cannot be used: an item with training interactions has no vector, sizes differ, or the
            program does not do what it must.
    """
    items = read_vectors(source.items)
    users = None if source.users is None else read_vectors(source.users)
    program = b"" if source.encoder is None else source.encoder.read_bytes()
    if source.encoder is not None and not program:
        raise ConfigError(f"{source.encoder}: it is empty: save the program again")
    if users is not None and users.vectors.shape[1] != items.vectors.shape[1]:
        widths = users.vectors.shape[1], items.vectors.shape[1]
        raise ConfigError(f"{source.users}: vectors of {widths[0]} numbers, but those of items have {widths[1]}")
    config = ExternalConfig(
        num_items=len(split.catalogue),
        embedding_size=items.vectors.shape[1],
        max_length=source.max_length,
        num_users=0 if users is None else len(split),
        program_size=len(program),
    )
    backbone = External(config).requires_grad_(False).eval()
    _put_items(backbone, split, items, source)
    backbone.program = torch.frombuffer(bytearray(program), dtype=torch.uint8) if program else backbone.program
    backbone.users.weight.zero_()
    backbone.fold_in.weight.copy_(torch.eye(config.embedding_size))
    if users is not None:
        _put_users(backbone, split, users, source.users)
    if source.encoder is not None:
        _check_program(backbone, source.encoder)
    return backbone.to(device)


def _put_items(backbone: External, split: SequenceSplit, items: Vectors, source: ExternalSource) -> None:
    """E by the catalogue's ids."""
    catalogue = split.catalogue
    rows, found = items.rows_for(catalogue.item_ids[1:])
    missing = np.flatnonzero(catalogue.trained[1:] & ~found)
    if not found.any() or (source.complete and len(missing)):
        raise ConfigError(
            f"{source.items}: no vectors of {len(missing)} items that have training interactions, such as"
            f" '{catalogue.item_ids[1 + missing[0]]}': every one needs a vector, by its id in the dataset; the file has"
            f" ids such as '{items.ids[0]}'"
        )
    backbone.items.weight.copy_(torch.from_numpy(np.concatenate([np.zeros_like(rows[:1]), rows])))
    backbone.placed.copy_(torch.from_numpy(np.concatenate([[False], found])))


def _put_users(backbone: External, split: SequenceSplit, users: Vectors, path: Path | None) -> None:
    """Vectors of users, and by ridge regression the map from the mean of a history to them, for who has none."""
    rows, found = users.rows_for(split.user_ids)
    if not found.any():
        raise ConfigError(
            f"{path}: none of its {len(users.ids)} user ids, such as '{users.ids[0]}', is in the dataset, which has ids"
            f" such as '{split.user_ids[0]}'"
        )
    known = np.flatnonzero(found).tolist()
    means_U_D = represent_all(backbone, [split.train[user] for user in known]).double()
    wanted_U_D = torch.from_numpy(rows[known]).double()
    gram_D_D = means_U_D.T @ means_U_D
    gram_D_D.diagonal().add_(RIDGE * gram_D_D.diagonal().mean().clamp_min(1e-12))
    backbone.fold_in.weight.copy_(torch.linalg.solve(gram_D_D, means_U_D.T @ wanted_U_D).T)
    backbone.users.weight[1:] = torch.from_numpy(rows)


def _check_program(backbone: External, path: Path) -> None:
    """Refuse a program whose answers have another shape, or depend on padding or on who else is asked about."""
    length, wanted = backbone.max_length, (USERS, backbone.embedding_size)
    generator = torch.Generator().manual_seed(0)
    history_B_T = torch.randint(1, backbone.num_items + 1, (USERS, length), generator=generator)
    history_B_T[1:, 0] = 0 if length > 1 else history_B_T[1:, 0]
    try:
        said = backbone.said(history_B_T)
        if not isinstance(said, torch.Tensor) or said.shape != wanted or not said.is_floating_point():
            found = f"{tuple(said.shape)} {said.dtype}" if isinstance(said, torch.Tensor) else type(said).__name__
            raise ConfigError(f"{path}: for {USERS} users it gives {found}, not {wanted} numbers with a point")
        together = backbone.represent(history_B_T)
        alone = backbone.represent(history_B_T[-1:, min(1, length - 1) :])
        short = {size: history_B_T[:, -size:] for size in {1, min(3, length), -(-length // 2)}}
        by_themselves = torch.cat([backbone.represent(history) for history in short.values()])
        among_longer = torch.cat(
            [backbone.represent(functional.pad(each, (length - size, 0))) for size, each in short.items()]
        )
    except (RuntimeError, ValueError, TypeError, LookupError, torch.jit.Error) as error:
        last = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ConfigError(
            f"{path}: the program cannot be used, where TorchScript or ONNX is wanted that takes any number of users"
            f" and up to {length} items of each: {last}"
        ) from error
    if not (together.isfinite().all() and by_themselves.isfinite().all()):
        raise ConfigError(f"{path}: it gives numbers that are not finite, for {length} items of a history or for one")
    same = partial(torch.allclose, atol=TOLERANCE, rtol=TOLERANCE)
    if not (same(together[-1:], alone) and same(by_themselves, among_longer)):
        raise ConfigError(f"{path}: what it says of a user depends on padding or on other users: it must heed `real`")
