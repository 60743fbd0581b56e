"""Training the collaborative-filtering backbone (A-LLMRec section 3): one, or the best of several presets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models.backbones import BACKBONES, Backbone, backbone_config, create_backbone, load_backbone, save_backbone
from models.backbones.hybrid import Hybrid, HybridConfig
from training.backbones.config import BackboneTrainingConfig, Preset
from training.backbones.external import ExternalSource, import_backbone
from training.backbones.full_ranking import FullRanking
from training.backbones.loss import WindowLoss
from training.backbones.race import race
from training.backbones.texts import item_text_vectors
from training.backbones.windows import WindowBatch, Windows
from training.data.splits import Holdout, SequenceSplit
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun

FUSED_DEVICES = ("cpu", "cuda")
"""Where torch has the optimizer's step as one operation."""
PRESETS_FOLDER = "presets"


def train_backbone(
    split: SequenceSplit, config: BackboneTrainingConfig, run: StageRun, kept: Path | None = None
) -> Backbone:
    """Run the stage, or load its result if it is done. A backbone of the kind `external` is imported instead.

    Args:
        split: the data.
        config: the stage's config, of which `run` was made.
        run: the stage's directory. Gets `backbone.json` and `backbone.safetensors`, those of presets that were not
            chosen under `presets/<name>`, and in `metrics.json` how each did on validation items.
        kept: where text vectors are kept; the stage's directory if not given.

    Raises:
        ConfigError: the backbone's kind or settings are wrong, or its text encoder cannot be loaded.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if run.is_done:
        return load_backbone(run.directory)
    run.start()
    if config.is_external:
        imported = import_backbone(split, ExternalSource.of(config.settings), config.device)
        validation = FullRanking.of(split, Holdout.VALIDATION, config.validation_users).metrics(imported)
        run.alone(lambda: save_backbone(imported, run.directory))
        run.finish({"validation": validation, "items": int(imported.placed.sum())})
        return load_backbone(run.directory)
    trainer = BackboneTrainer(split, config, run, kept)
    result = race(config.candidates, config.loop, trainer.train, run)

    def save() -> None:
        for name, backbone in result.others.items():
            save_backbone(backbone, run.directory / PRESETS_FOLDER / name)
        save_backbone(result.backbone, run.directory)

    run.alone(save)
    run.write_curve(result.outcome.curve, result.chosen)
    run.finish(result.summary)
    return load_backbone(run.directory)


class BackboneTrainer:
    """Trains one preset after another on the same data.

    Args:
        split: the data.
        config: the stage's.
        run: keeps checkpoints.
        kept: where text vectors are kept; the run's directory if not given.
    """

    def __init__(
        self, split: SequenceSplit, config: BackboneTrainingConfig, run: RunContext, kept: Path | None = None
    ) -> None:
        self._split, self._config, self._run = split, config, run
        self._kept = kept or run.directory
        self._validation = FullRanking.of(split, Holdout.VALIDATION, config.validation_users)

    def train(self, name: str, preset: Preset, loop: LoopConfig) -> tuple[Backbone, Outcome]:
        """Train a preset from scratch, or on from where the last call with its name has left it."""
        backbone = self.create(preset)
        windows = Windows(self._split.train, backbone.max_length)
        seed = self._config.seed

        def batches(epoch: int) -> Sequence[WindowBatch]:
            rows = windows.batches(preset.batch_size, epoch_rng(seed, epoch))
            return [WindowBatch(chosen, (seed, epoch, index)) for index, chosen in enumerate(rows)]

        optimizer = torch.optim.Adam(
            backbone.parameters(),
            lr=preset.learning_rate,
            betas=preset.betas,
            weight_decay=preset.weight_decay,
            fused=backbone.device.type in FUSED_DEVICES,
        )
        loss = WindowLoss(backbone, windows, self._split, preset)
        validate = (lambda: self._validation.metrics(backbone)) if len(self._validation.positives) else None
        task = Task(backbone, optimizer, batches, loss, validate, windows.part)
        return backbone, self._run.train(task, loop, f"backbone {name}", name)

    def create(self, preset: Preset) -> Backbone:
        """A backbone with fresh weights, which has read the texts, or has room for all users, if it reads these."""
        catalogue, device = self._split.catalogue, self._config.device
        sizes = {"num_items": len(catalogue)}
        if preset.kind in BACKBONES and BACKBONES[preset.kind][0].reads_users:
            sizes["num_users"] = len(self._split)
        config = backbone_config(preset.kind, sizes | preset.settings)
        if isinstance(config, HybridConfig):
            texts = item_text_vectors(catalogue, config, self._kept, device)
            config = config.model_copy(update={"text_size": texts.shape[1]})
        seed_everything(self._config.seed)
        backbone = create_backbone(preset.kind, config).to(device)
        if isinstance(backbone, Hybrid):
            backbone.read_texts(texts, torch.from_numpy(catalogue.trained))
        return backbone
