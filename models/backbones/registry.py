"""All backbones by name. To add one: implement `Backbone`, give it a `kind`, list it here; the behaviour suite in
`tests/models/backbones` then runs on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.backbones.base import Backbone, BackboneConfig
from models.backbones.external import External, ExternalConfig
from models.backbones.gru4rec import GRU4Rec, GRU4RecConfig
from models.backbones.hybrid import Hybrid, HybridConfig
from models.backbones.ncf import NCF, NCFConfig
from models.backbones.nextitnet import NextItNet, NextItNetConfig
from models.backbones.sasrec import SASRec, SASRecConfig
from models.config import explained
from models.errors import ConfigError

BACKBONES: dict[str, tuple[type[Backbone], type[BackboneConfig]]] = {
    SASRec.kind: (SASRec, SASRecConfig),
    Hybrid.kind: (Hybrid, HybridConfig),
    GRU4Rec.kind: (GRU4Rec, GRU4RecConfig),
    NextItNet.kind: (NextItNet, NextItNetConfig),
    NCF.kind: (NCF, NCFConfig),
    External.kind: (External, ExternalConfig),
}

CONFIG_FILE = "backbone.json"
WEIGHTS_FILE = "backbone.safetensors"


def create_backbone(kind: str, config: BackboneConfig | Mapping[str, Any]) -> Backbone:
    """A backbone with fresh weights.

    Args:
        kind: a key of `BACKBONES`.
        config: its config, or the config's fields; `num_items` at least.

    Raises:
        ConfigError: the kind is unknown or the config does not fit it.
    """
    checked = backbone_config(kind, config.model_dump() if isinstance(config, BackboneConfig) else config)
    return BACKBONES[kind][0](checked)


def backbone_config(kind: str, fields: Mapping[str, Any]) -> BackboneConfig:
    """The config of a backbone.

    Args:
        kind: a key of `BACKBONES`.
        fields: its fields; `num_items` at least.

    Raises:
        ConfigError: the kind is unknown or a field does not fit it.
    """
    if kind not in BACKBONES:
        raise ConfigError(f"backbone '{kind}' is unknown: choose one of {', '.join(BACKBONES)}")
    try:
        return BACKBONES[kind][1].model_validate(dict(fields))
    except ValidationError as error:
        raise ConfigError(f"backbone '{kind}': {explained(error, BACKBONES[kind][1])}") from error


def save_backbone(backbone: Backbone, directory: Path) -> None:
    """Write `backbone.json` and `backbone.safetensors` into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in backbone.weights().items()}, directory / WEIGHTS_FILE)
    content = {"kind": backbone.kind, "config": backbone.config.model_dump(mode="json")}
    (directory / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")


def load_backbone(directory: Path) -> Backbone:
    """The backbone saved in `directory`, frozen and in eval mode.

    Raises:
        ConfigError: it is missing, or its files do not fit each other.
    """
    try:
        content = json.loads((directory / CONFIG_FILE).read_text())
        backbone = create_backbone(content["kind"], content["config"])
        backbone.load_state_dict(load_file(directory / WEIGHTS_FILE))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"no backbone can be loaded from {directory}: {error}") from error
    return backbone.eval().requires_grad_(False)
