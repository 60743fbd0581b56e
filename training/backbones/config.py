"""The stage `backbone`: one backbone, or presets to choose among."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from models.backbones.external import External
from models.backbones.hybrid import Hybrid
from models.config import Config
from training.backbones.objectives import Objective
from training.runs.loop import LoopConfig


class Preset(Config):
    """A backbone and how it is trained.

    Attributes:
        kind: a name in the backbone registry.
        settings: the backbone's own fields, such as `embedding_size` or `dropout`; of the kind `external` those of
            `training.backbones.external.ExternalSource`.
        objective: the training objective.
        negatives: shared negatives of `sampled_softmax`.
        popularity_share: of the shared negatives drawn by popularity^0.75; the others are uniform.
        trained_negatives: `bce` draws negatives of items with training interactions only. The paper draws of all, and
            so teaches that items without any are never wanted. The softmax objectives never have those.
        batch_size: windows a step. The paper has 128.
        learning_rate: of Adam.
        betas: of Adam.
        weight_decay: of Adam (L2 on all weights).
    """

    kind: str = "sasrec"
    settings: dict[str, Any] = Field(default_factory=dict)
    objective: Objective = Objective.BCE
    negatives: int = Field(256, gt=0)
    popularity_share: float = Field(0.5, ge=0, le=1)
    trained_negatives: bool = True
    batch_size: int = Field(128, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.0, ge=0)


PRESETS: dict[str, Preset] = {
    "sasrec_bce": Preset(settings={"embedding_size": 64, "dropout": 0.2}, learning_rate=2e-3),
    "sasrec_softmax": Preset(
        settings={"embedding_size": 128, "dropout": 0.5}, objective=Objective.SOFTMAX, learning_rate=2e-3
    ),
    "sasrec_sampled": Preset(
        settings={"embedding_size": 128, "dropout": 0.5},
        objective=Objective.SAMPLED_SOFTMAX,
        negatives=512,
        learning_rate=2e-3,
    ),
    "hybrid_softmax": Preset(
        kind="hybrid",
        settings={"embedding_size": 128, "dropout": 0.5, "word_directions": 256},
        objective=Objective.SOFTMAX,
        learning_rate=2e-3,
    ),
    "hybrid_sampled": Preset(
        kind="hybrid",
        settings={"embedding_size": 128, "dropout": 0.2, "word_directions": 256},
        objective=Objective.SAMPLED_SOFTMAX,
        negatives=512,
        learning_rate=2e-3,
    ),
    "gru4rec_softmax": Preset(
        kind="gru4rec",
        settings={"embedding_size": 64, "dropout": 0.4},
        objective=Objective.SOFTMAX,
        learning_rate=2e-3,
    ),
    "nextitnet_softmax": Preset(
        kind="nextitnet",
        settings={"embedding_size": 64, "dropout": 0.4},
        objective=Objective.SOFTMAX,
        learning_rate=2e-3,
    ),
    "ncf_softmax": Preset(
        kind="ncf", settings={"embedding_size": 64, "dropout": 0.4}, objective=Objective.SOFTMAX, learning_rate=2e-3
    ),
    "hybrid_bce": Preset(
        kind="hybrid",
        settings={"embedding_size": 64, "dropout": 0.2, "word_directions": 256},
        learning_rate=2e-3,
    ),
}
"""By name, for `BackboneTrainingConfig.presets`."""


class BackboneTrainingConfig(Preset):
    """The stage `backbone`.

    What `Preset` has says which backbone is trained, unless `presets` has any names.

    Attributes:
        presets: names in `PRESETS`. The one with the best NDCG@10 of validation items over the full catalogue is kept.
            They share `loop.minutes`; see `training.backbones.race`.
        text_encoder: what all that read texts are trained with in the place of their own `settings.text_encoder`:
            "embedded", a hub name or a path of a sentence-transformers model.
        validation_users: at most this many users are validated on.
        loop: when to stop, validate and save. Without `minutes` every preset is trained to its end.
        device: where it runs.
        seed: of everything random.
    """

    presets: tuple[str, ...] = ()
    text_encoder: str | None = None
    validation_users: int = Field(10_000, gt=0)
    loop: LoopConfig = LoopConfig(epochs=60, validate_every=2, patience=8)
    device: str = "cpu"
    seed: int = 0

    @model_validator(mode="after")
    def _either(self) -> BackboneTrainingConfig:
        unknown = [name for name in self.presets if name not in PRESETS]
        if unknown:
            raise ValueError(f"preset '{unknown[0]}' is unknown: choose among {', '.join(PRESETS)}")
        own = sorted(set(Preset.model_fields) & self.model_fields_set)
        if self.presets and own:
            raise ValueError(f"presets have their own '{own[0]}': give presets = [] to train a backbone of your own")
        if self.text_encoder is not None and not any(map(_reads_texts, self.candidates.values())):
            raise ValueError(f"'text_encoder' is of no effect: {', '.join(self.candidates)} read no texts")
        return self

    @property
    def is_external(self) -> bool:
        """Whether the backbone is imported, not trained."""
        return not self.presets and self.kind == External.kind

    @property
    def candidates(self) -> dict[str, Preset]:
        """What is trained, by name."""
        presets: dict[str, Preset] = {name: PRESETS[name] for name in self.presets} or {self.kind: self}
        if self.text_encoder is None:
            return presets
        encoder = {"text_encoder": self.text_encoder}
        return {
            name: preset.model_copy(update={"settings": preset.settings | encoder}) if _reads_texts(preset) else preset
            for name, preset in presets.items()
        }


def _reads_texts(preset: Preset) -> bool:
    return preset.kind == Hybrid.kind
