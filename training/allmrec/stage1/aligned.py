"""What stage 1 leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.placement import Placement
from models.alignment.text_encoder import TextEncoder
from models.backbones import Backbone, load_backbone, save_backbone
from training.allmrec.stage1.config import Stage1Config

ALIGNMENT_FILE = "alignment.safetensors"
TABLES_FILE = "tables.safetensors"
TEXT_ENCODER_FOLDER = "text_encoder"


@dataclass(frozen=True)
class Aligned:
    """What stage 1 leaves.

    Attributes:
        backbone: as it came, frozen.
        alignment: the encoders and decoders, frozen.
        text_encoder: fine-tuned unless frozen.
        text_vectors: (N+1, d_T) Q.
        placement: of all N+1 rows.

    Row 0 of every table is zeros.
    """

    backbone: Backbone
    alignment: Alignment
    text_encoder: TextEncoder
    text_vectors: torch.Tensor
    placement: Placement

    @property
    def tables(self) -> dict[str, torch.Tensor]:
        """All tables by name."""
        return {"text_vectors": self.text_vectors, **vars(self.placement)}

    def save(self, directory: Path) -> None:
        """Write networks, tables and text encoder into `directory`."""
        save_backbone(self.backbone, directory)
        weights = {name: tensor.contiguous() for name, tensor in self.alignment.state_dict().items()}
        save_file(weights, directory / ALIGNMENT_FILE)
        save_file({name: table.contiguous() for name, table in self.tables.items()}, directory / TABLES_FILE)
        self.text_encoder.save(directory / TEXT_ENCODER_FOLDER)

    @classmethod
    def load(cls, directory: Path, config: Stage1Config) -> Aligned:
        """What `save` wrote.

        Raises:
            ConfigError: the backbone or the text encoder cannot be loaded.
        """
        tables = load_file(directory / TABLES_FILE)
        sizes = AlignmentConfig(
            cf_size=tables["cf_vectors"].shape[1],
            text_size=tables["text_vectors"].shape[1],
            joint_size=tables["joint_item"].shape[1],
        )
        alignment = Alignment(sizes)
        alignment.load_state_dict(load_file(directory / ALIGNMENT_FILE))
        weights = directory / TEXT_ENCODER_FOLDER
        encoder = TextEncoder(config.text_encoder, config.max_text_tokens, weights=weights)
        text_vectors = tables.pop("text_vectors")
        frozen = alignment.eval().requires_grad_(False)
        return cls(load_backbone(directory), frozen, encoder, text_vectors, Placement(**tables))
