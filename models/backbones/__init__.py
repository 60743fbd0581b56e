"""Collaborative-filtering backbones, frozen once trained."""

from models.backbones.base import Backbone, BackboneConfig, pad_histories, represent_all
from models.backbones.registry import BACKBONES, backbone_config, create_backbone, load_backbone, save_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneConfig",
    "backbone_config",
    "create_backbone",
    "load_backbone",
    "pad_histories",
    "represent_all",
    "save_backbone",
]
