"""What item text vectors are worth to a sequential recommender (LLM2Rec section 4): frozen, behind a linear adapter.

Two ways of use: the paper's, where an item is `A q_i` alone, in SASRec or GRU4Rec, and `hybrid`, where it is
`id_i + A q_i`.

Axes: E users, N items, Q text size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from rich.console import Console

from models.alignment.text_encoder import TextEncoder, encoder_fingerprint
from models.backbones import BACKBONES, Backbone, create_backbone
from models.backbones.hybrid import Hybrid, HybridConfig
from models.catalogue import Catalogue
from models.config import Config
from models.devices import check_devices
from models.errors import ConfigError
from training.backbones.config import BackboneTrainingConfig, Preset
from training.backbones.full_ranking import FullRanking
from training.backbones.objectives import Objective
from training.backbones.train import BackboneTrainer
from training.data.splits import Holdout, SequenceSplit
from training.llm2rec.adapted import Adapted
from training.llm2rec.config import ItemTexts
from training.llm2rec.corpus import Domain, item_texts
from training.runs.context import RunContext
from training.runs.kept import kept_tensor
from training.runs.loop import LoopConfig, seed_everything
from training.runs.stage_run import StageRun

RANKS_FILE = "ranks.npz"
VECTORS = "text_vectors"


LABEL = re.compile(r"[^/\\|\x00-\x1f]+")
HYBRID = Hybrid.kind
"""The use in which items are known by ids as well; any other is a kind of backbone that items are adapted to."""
ADAPTED = ("sasrec", "gru4rec")
"""The paper's recommenders."""


def known_uses() -> list[str]:
    """Of vectors: adapted to the paper's recommenders, as far as there are backbones of such kinds, and hybrid."""
    return [*(kind for kind in ADAPTED if kind in BACKBONES), HYBRID]


class TrialConfig(Config):
    """What encoders are tried with; the same for all of them.

    Attributes:
        texts: what they read of an item.
        max_text_tokens: longer texts are cut.
        embedding_size: of the recommender.
        dropout: of the recommender.
        learning_rate: of Adam.
        batch_size: windows a step.
        loop: when a recommender's training ends; the best on validation items is kept.
        validation_users: at most so many are validated on.
        device: where encoders and recommenders run.
        seed: of everything random.
    """

    texts: ItemTexts = ItemTexts.TITLE
    max_text_tokens: int = Field(64, gt=1)
    embedding_size: int = Field(64, gt=0)
    dropout: float = Field(0.5, ge=0, lt=1)
    learning_rate: float = Field(2e-3, gt=0)
    batch_size: int = Field(128, gt=0)
    loop: LoopConfig = LoopConfig(epochs=100, validate_every=3, patience=4)
    validation_users: int = Field(10_000, gt=0)
    device: str = "cpu"
    seed: int = 0

    def backbone(self, use: str) -> BackboneTrainingConfig:
        """Of the recommender."""
        return BackboneTrainingConfig(
            kind=use,
            settings={"embedding_size": self.embedding_size, "dropout": self.dropout},
            objective=Objective.SOFTMAX,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            loop=self.loop,
            validation_users=self.validation_users,
            device=self.device,
            seed=self.seed,
        )


def encode_items(catalogue: Catalogue, encoder: str, config: TrialConfig, path: Path) -> torch.Tensor:
    """(N+1, Q) text vectors of all items, row 0 zeros; kept in the file `path`, which is the caller's to name.

    Raises:
        ConfigError: the encoder cannot be loaded.
    """

    def encode() -> torch.Tensor:
        model = TextEncoder(encoder, config.max_text_tokens, config.device)
        vectors = torch.zeros(len(catalogue) + 1, model.size)
        vectors[1:] = model.encode(model.tokenize(item_texts(catalogue, config.texts)[1:]), autocast=True).cpu()
        return vectors

    return kept_tensor(path, VECTORS, encode)


class VectorTrainer(BackboneTrainer):
    """Trains recommenders on text vectors that are given.

    Args:
        split: the data.
        config: of the recommender.
        run: keeps checkpoints.
        vectors_N_Q: (N+1, Q) text vectors.
    """

    def __init__(
        self, split: SequenceSplit, config: BackboneTrainingConfig, run: RunContext, vectors_N_Q: torch.Tensor
    ) -> None:
        super().__init__(split, config, run)
        self._vectors_N_Q, self._seed = vectors_N_Q, config.seed

    def create(self, preset: Preset) -> Backbone:
        """A hybrid, or items adapted to a backbone of another kind, with fresh weights."""
        catalogue = self._split.catalogue
        seed_everything(self._seed)
        if preset.kind != HYBRID:
            # Its own table of items is never read.
            network = create_backbone(preset.kind, {"num_items": 1, **preset.settings})
            return Adapted(network, self._vectors_N_Q).to(self._config.device)
        fields = {"num_items": len(catalogue), "text_size": self._vectors_N_Q.shape[1], **preset.settings}
        hybrid = Hybrid(HybridConfig.model_validate(fields)).to(self._config.device)
        hybrid.read_texts(self._vectors_N_Q, torch.from_numpy(catalogue.trained))
        return hybrid


class Trials:
    """Encoders on one catalogue.

    Args:
        domain: the catalogue.
        fingerprint: of its data.
        config: the same for all encoders.
        directory: what is done there is not done again.
        console: for progress.
    """

    def __init__(
        self, domain: Domain, fingerprint: str, config: TrialConfig, directory: Path, console: Console | None = None
    ) -> None:
        check_devices([config.device])
        self._domain, self._config, self._directory, self._console = domain, config, directory, console
        self._fingerprint = fingerprint

    def ranks(self, label: str, encoder: str, use: str, seeds: int = 1) -> dict[Holdout, np.ndarray]:
        """Of held-out items (S, E) among the whole catalogue, less what their users know, by what is held out.

        Args:
            label: of the encoder; names its folder.
            encoder: what `TextEncoder` takes.
            use: one of `known_uses`.
            seeds: S trainings, by the config's seed and those after it.
        """
        chosen = range(self._config.seed, self._config.seed + seeds)
        found = [self._ranks(label, encoder, use, self._config.model_copy(update={"seed": seed})) for seed in chosen]
        return {holdout: np.stack([ranks[holdout] for ranks in found]) for holdout in Holdout}

    def _ranks(self, label: str, encoder: str, use: str, config: TrialConfig) -> dict[Holdout, np.ndarray]:
        """(E,) of one seed."""
        split = self._domain.split
        inputs = {"data": self._fingerprint, "encoder": encoder_fingerprint(encoder), "use": use}
        folder = self._directory / label / use / f"seed-{config.seed}"
        run = StageRun(folder, config, config.seed, inputs, self._console)
        if not run.is_done:
            run.start()
            vectors = encode_items(split.catalogue, encoder, config, self._vectors_path(label, inputs["encoder"]))
            trainer = VectorTrainer(split, config.backbone(use), run, vectors)
            name = f"{self._domain.name}, {label}, {use}, seed {config.seed}"
            backbone, outcome = trainer.train(name, config.backbone(use), config.loop)
            ranks = {holdout.value: FullRanking.of(split, holdout).ranks(backbone.eval()) for holdout in Holdout}
            np.savez_compressed(run.directory / RANKS_FILE, **ranks)  # type: ignore[arg-type]
            run.finish(outcome.summary)
        with np.load(run.directory / RANKS_FILE) as saved:
            return {holdout: saved[holdout.value] for holdout in Holdout}

    def _vectors_path(self, label: str, encoder: str) -> Path:
        name = f"{self._config.texts.value}-{self._config.max_text_tokens}-{encoder[:12]}-{self._fingerprint[:12]}"
        return self._directory / label / f"vectors-{name}.safetensors"

    def groups(self, holdout: Holdout) -> Mapping[str, np.ndarray]:
        """Masks (E,) of the users by their held-out item."""
        return FullRanking.of(self._domain.split, holdout).groups


def labelled(encoders: Sequence[str]) -> dict[str, str]:
    """Encoders by label: `label=encoder`, or the name of what holds the folder `encoder`."""
    found: dict[str, Any] = {}
    for given in encoders:
        label, separator, encoder = given.partition("=")
        if not separator:
            path = Path(given)
            label, encoder = path.parent.name if path.name == "encoder" else path.name, given
        if not LABEL.fullmatch(label) or label in {".", ".."}:
            raise ConfigError(
                f"--encoder {given}: '{label}' is no name for a folder; give another, as in --encoder NAME=FOLDER"
            )
        if label in found:
            raise ConfigError(f"two encoders are called '{label}': give each its name, as in --encoder NAME=FOLDER")
        found[label] = encoder
    return found
