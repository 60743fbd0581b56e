"""A recipe: everything that a run is made from, in one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from models.backbones import BACKBONES
from models.backbones.external import External
from models.config import Config, explained
from models.errors import ConfigError
from training.allmrec.blend.config import BlendConfig
from training.allmrec.recipes import SHIPPED, shipped_recipes
from training.allmrec.retrieval import RetrievalConfig
from training.allmrec.signals import SignalsConfig
from training.allmrec.stage1.config import Stage1Config
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.title_tokens.config import TitleTokensConfig
from training.allmrec.user_encoder import UserEncoderConfig
from training.backbones.config import BackboneTrainingConfig
from training.backbones.external import ExternalSource
from training.data.importing.importer import ImportOptions
from training.data.importing.ledger import OnBadRow
from training.evaluation.evaluate import EvaluationConfig
from training.runs.settings import parse_setting, put_setting


class DataOptions(ImportOptions):
    """How `fit` imports raw files: as `import` does, but bad rows are left out and counted unless told to fail."""

    on_bad_row: OnBadRow = OnBadRow.SKIP


class Recipe(Config):
    """All stages of `allmrec-train fit`.

    Attributes:
        seed: of every stage that does not set its own.
        device: where every stage that does not set its own runs, such as "cuda", and every one of `baselines`.
        refit: export what was fitted again on all interactions, with all that was chosen on validation items.
        data: how raw files are imported; of no effect on a dataset that is already imported.
        backbone: the CF backbone.
        second: another CF backbone, trained by another objective, whose logits are one more signal of the blend; none
            if not given. Its seed is the next one, if it does not set its own.
        stage1: items aligned with their text.
        stage2: users and items aligned with the LLM.
        title_tokens: users and items injected into lists of titles, where the blend has that way to ask.
        user_encoder: a head on the LLM's states, where the blend has that way to ask.
        signals: what is computed without an LLM.
        blend: how signals and the LLM are weighed.
        retrieval: how it is chosen where candidates come from.
        evaluation: how the result is evaluated.
        baselines: settings of the papers' other systems by their ids, under `every` those of all; see
            `training.baselines`.
    """

    seed: int = 0
    device: str = "cpu"
    refit: bool = True
    data: DataOptions = DataOptions()
    backbone: BackboneTrainingConfig = BackboneTrainingConfig()
    second: BackboneTrainingConfig | None = None
    stage1: Stage1Config = Stage1Config()
    stage2: Stage2Config = Stage2Config()
    title_tokens: TitleTokensConfig = TitleTokensConfig()
    user_encoder: UserEncoderConfig = UserEncoderConfig()
    signals: SignalsConfig = SignalsConfig()
    blend: BlendConfig = BlendConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baselines: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def devices(self) -> list[str]:
        """Where its stages and baselines run."""
        stages = [self.backbone.device, self.stage1.device, self.stage2.device]
        second = [self.second.device] if self.second else []
        return [*stages, *second, *(given["device"] for given in self.baselines.values() if "device" in given)]


STAGES = ("backbone", "stage1", "stage2", "title_tokens", "user_encoder", "blend", "evaluation")
WITH_DEVICE = ("backbone", "stage1", "stage2")


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: of a shipped recipe, or the path of a TOML file.
        overrides: `stage.key=value` settings in TOML's notation that go before the file's. Keys of a stage's `loop`
            may leave `loop` out: `stage2.minutes=5`. `backbone.kind` puts a backbone of one's own in the place of the
            recipe's presets.

    Raises:
        ConfigError: there is no such recipe, or a key or value in it is wrong; names file and key.
    """
    where, text = _read(name)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}") from error
    for override in overrides:
        put_setting(content, Recipe, override)
    _choose_backbone(content, overrides)
    seed = content.get("seed", 0)
    for stage in STAGES:
        section = content.setdefault(stage, {})
        if isinstance(section, dict):
            section.setdefault("seed", seed)
    if isinstance(content.get("device"), str):
        _place(content, content["device"])
    _complete_second(content, seed)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explained(error, Recipe, 'the recipe')}") from error


def _read(name: str) -> tuple[str, str]:
    """Where the recipe stands, and its text."""
    path = Path(name)
    try:
        if name in shipped_recipes():
            return f"recipe {name}", (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
        return str(path), path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        known = ", ".join(shipped_recipes())
        raise ConfigError(f"recipe '{name}' cannot be read: name one of {known}, or a TOML file") from error


def _choose_backbone(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Who sets the kind of a backbone, and no presets, wants that one instead of the recipe's presets, with what of the
    recipe's settings that kind has.

    Who imports a backbone wants none trained beside it, unless it is said.
    """
    chosen = {".".join(parse_setting(override)[0]) for override in overrides}
    for stage in ("backbone", "second"):
        if f"{stage}.kind" not in chosen:
            continue
        if f"{stage}.presets" not in chosen:
            content[stage].pop("presets", None)
        if f"{stage}.settings" not in chosen and isinstance(settings := content[stage].get("settings"), dict):
            known, others = _settings_of(content[stage]["kind"]), set().union(*map(_settings_of, BACKBONES))
            for name in [name for name in settings if f"{stage}.settings.{name}" not in chosen]:
                if known and name not in known and name in others:
                    del settings[name]
    imported = "backbone.kind" in chosen and content["backbone"]["kind"] == External.kind
    if imported and not any(name.split(".")[0] == "second" for name in chosen):
        content.pop("second", None)


def _settings_of(kind: Any) -> set[str]:
    """The settings that a kind of backbone has; none are known of an unknown one."""
    if kind == External.kind:
        return set(ExternalSource.model_fields)
    return set(BACKBONES[kind][1].model_fields) if isinstance(kind, str) and kind in BACKBONES else set()


def _place(content: dict[str, Any], device: str) -> None:
    """Let what has no device of its own run on `device`."""
    baselines = content.setdefault("baselines", {})
    for section in (*map(content.get, WITH_DEVICE), baselines.setdefault("every", {})):
        if isinstance(section, dict):
            section.setdefault("device", device)


def _complete_second(content: dict[str, Any], seed: Any) -> None:
    """The next seed and the first backbone's device, unless it has its own; an empty table is no second backbone."""
    second, first = content.get("second"), content["backbone"]
    if second == {}:
        del content["second"]
    elif isinstance(second, dict) and isinstance(seed, int):
        second.setdefault("seed", seed + 1)
        if isinstance(first, dict) and "device" in first:
            second.setdefault("device", first["device"])
