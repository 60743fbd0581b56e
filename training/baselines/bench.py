"""What systems are fitted with: the data, A-LLMRec's stages, and folders for stages of their own.

Every stage is kept under the fingerprint of its settings and inputs, so that all tables share what they have in common:
a backbone is trained once for each dataset, seed and settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from pydantic import ValidationError
from rich.console import Console

from models.backbones.hybrid import HybridConfig
from models.bundle.signal_tables import SignalTables
from models.config import Config, explained
from models.errors import ConfigError
from models.llm.loading import LanguageModel, identity_of
from training.allmrec.pipeline import Pipeline
from training.allmrec.recipe import Recipe
from training.backbones.texts import backbone_inputs, encoder_inputs, item_text_vectors
from training.data.dataset import INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE, Dataset
from training.data.fitness import check_fitness
from training.data.splits import SequenceSplit
from training.runs.cost import Cost, metered
from training.runs.loop import LoopConfig
from training.runs.settings import merged
from training.runs.stage_run import StageRun

EVERY = "every"
"""In a recipe's `baselines`: what holds for all that do not say otherwise."""


class BaselineConfig(Config):
    """What all baselines have.

    Attributes:
        loop: when training ends, validates and saves.
        minutes: all phases end after so many at the latest, whatever their loops say; as they say if not given.
        device: where it runs.
        seed: of everything random.
    """

    loop: LoopConfig = LoopConfig(epochs=20, minutes=5)
    minutes: float | None = None
    device: str = "cpu"
    seed: int = 0

    @property
    def limited(self) -> Self:
        """The same with `minutes` in every loop."""
        if self.minutes is None:
            return self
        loops = {name: value for name, value in self if isinstance(value, LoopConfig)}
        return self.model_copy(
            update={name: loop.model_copy(update={"minutes": self.minutes}) for name, loop in loops.items()}
        )


C = TypeVar("C", bound=BaselineConfig)
T = TypeVar("T")
Teach = Callable[[Dataset], SequenceSplit]


class Bench(Pipeline):
    """One recipe on one dataset.

    Args:
        source: a dataset's folder, or raw files.
        recipe: how.
        home: all that is kept of the dataset stands in it.
        console: where progress is shown.
        teach: what is learned from, by name: all that leave-last-out leaves for training, unless given.
        memory: what benches of one dataset share while they live; each has its own if not given.

    Attributes:
        cost: of the stages that were asked for, whenever they ran.
    """

    def __init__(
        self,
        source: Path,
        recipe: Recipe,
        home: Path,
        console: Console,
        teach: tuple[str, Teach] = ("", SequenceSplit.from_dataset),
        memory: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(source, recipe, home, console)
        self.console = console
        self._teach_name, self._teach = teach
        self._memory = {} if memory is None else memory
        self._costs: dict[str, Cost] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """The data."""
        return self._remembered("dataset", lambda: Dataset.load(self.dataset_path))

    @cached_property
    def split(self) -> SequenceSplit:
        """What is learned from. What it cannot support is said before anything is trained.

        Raises:
            DataError: nothing can be learned from it.
        """

        def split() -> SequenceSplit:
            taught = self._teach(self.dataset)
            for warning in check_fitness(self.dataset, taught):
                self.console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
            return taught

        return self._remembered(f"split {self._teach_name}", split)

    @cached_property
    def llm(self) -> LanguageModel:
        """The frozen LLM."""
        config = self.recipe.stage2
        return self._remembered(f"llm {config.llm} {config.device} {config.dtype}", lambda: super(Bench, self).llm)

    @cached_property
    def signals(self) -> SignalTables:
        """What signals without an LLM are computed from."""
        key = f"signals {self._teach_name} {self.recipe.signals.model_dump_json()}"
        return self._remembered(key, lambda: super(Bench, self).signals)

    @property
    def cost(self) -> Cost:
        """See above."""
        return sum(self._costs.values(), Cost())

    @cached_property
    def fingerprint(self) -> str:
        """Of the data, and of what is learned from it."""
        files = (self.dataset_path / name for name in (INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE))
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        return hashlib.sha256(json.dumps([*digests, self._teach_name]).encode()).hexdigest()

    def identities(self, name: str, rests_on_llm: bool) -> dict[str, str]:
        """Fingerprints of all files that a baseline is made from, beside the data.

        Args:
            name: of the baseline.
            rests_on_llm: whether the LLM is one of them.

        Raises:
            ConfigError: a file is missing.
        """
        recipe = self.recipe
        given = merged(recipe.baselines.get(EVERY, {}), recipe.baselines.get(name, {}))
        encoders = [str(given[key]) for key in ("text_encoder", "weights") if key in given]
        found = {**backbone_inputs(recipe.backbone), **encoder_inputs(recipe.stage1.text_encoder, *encoders)}
        return {**found, **identity_of(recipe.stage2.llm)} if rests_on_llm else found

    def text_vectors(self, **fields: Any) -> torch.Tensor:
        """(N+1, d_T) of all items by a frozen text encoder, row 0 zeros.

        Args:
            fields: of `HybridConfig`: which encoder, and what it reads; stage 1's if not given.
        """
        stage1 = self.recipe.stage1
        of_stage1 = {name: getattr(stage1, name) for name in ("text_encoder", "max_text_tokens", "text_categories")}
        return self.texts_of(HybridConfig(num_items=len(self.split.catalogue), **{**of_stage1, **fields}))

    def config(self, name: str, kind: type[C]) -> C:
        """The recipe's settings of a baseline: its defaults, what is said for all, what is said for it.

        Raises:
            ConfigError: a key or a value is wrong.
        """
        given = self.recipe.baselines
        said = merged(given.get(EVERY, {}), given.get(name, {}))
        fields = merged(kind(seed=self.recipe.seed).model_dump(), said)
        try:
            return kind.model_validate(fields).limited
        except ValidationError as error:
            raise ConfigError(f"baselines.{name}: {explained(error, kind)}") from error

    def trained(
        self, name: str, config: BaselineConfig, inputs: Mapping[str, str], train: Callable[[StageRun], dict[str, Any]]
    ) -> Path:
        """The folder of a baseline's stage, which `train` fills, and says how it went, unless that was done before.

        Args:
            name: of the stage.
            config: of it.
            inputs: fingerprints of what else it depends on, beside the data.
            train: is given a run that was started.
        """

        def work(run: StageRun) -> Path:
            if not run.is_done:
                run.start()
                run.finish(train(run))
            return run.directory

        return self.stage(name, config, inputs, work)

    def stage(self, name: str, config: Config, inputs: Mapping[str, str], work: Callable[[StageRun], T]) -> T:
        """What `work` makes of a stage's run, which it starts and finishes unless that was done; else as `trained`."""
        run = self.folder(name, config, {"data": self.fingerprint, **inputs})
        with self.step(name, run.is_done):
            return work(run)

    def output(self, stage: str) -> str:
        """Fingerprint of what a stage of A-LLMRec left, once it was asked for."""
        return self._runs[stage].output

    def folder(self, name: str, config: Config, inputs: Mapping[str, str]) -> StageRun:
        """See `Chain.folder`: one that is named by the fingerprint too."""
        run = StageRun.keyed(self.directory / name, config, inputs, self.console)
        self._runs[name] = run
        return run

    def texts_of(self, config: HybridConfig) -> torch.Tensor:
        """See `Foundation.texts_of`: kept once for all backbones."""
        device = self.recipe.backbone.device
        read = {"texts": [config.text_encoder, config.max_text_tokens, config.text_categories, config.word_directions]}
        name = f"texts-{hashlib.sha256(json.dumps(read).encode()).hexdigest()[:12]}.json"
        path = self.directory / "costs" / name
        if path.is_file():
            vectors = item_text_vectors(self.split.catalogue, config, self.directory / "texts", device)
        else:
            with metered(path):
                vectors = item_text_vectors(self.split.catalogue, config, self.directory / "texts", device)
        self._costs[name] = Cost.load(path)
        return vectors

    @contextmanager
    def step(self, name: str, done: bool) -> Iterator[None]:
        """See `Chain.step`: what is done is not announced, and what every stage costs is kept."""
        run = self._runs.get(name)
        if run is None:
            yield
            return
        path = self.directory / "costs" / f"{name}-{run.directory.name}.json"
        if done:
            yield
        else:
            run.say(name, style="bold")
            with metered(path):
                yield
        self._costs[name] = Cost.load(path)

    def _remembered(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._memory:
            self._memory[key] = make()
        found: T = self._memory[key]
        return found
