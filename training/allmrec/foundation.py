"""What the stages rest on that is no stage: the data, the LLM and its prompts, signals."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console

from models.backbones.hybrid import HybridConfig
from models.bundle.signal_tables import SignalTables
from models.domain import DOMAINS
from models.llm.loading import LanguageModel, load_llm
from models.prompts.layout import Injection
from models.prompts.template import PromptConfig
from models.prompts.titles import TitleTokens
from models.rankers.of_model import CHOICES, INJECTED, TITLES
from training.allmrec.chain import Chain, Fingerprints
from training.allmrec.recipe import Recipe
from training.allmrec.signals import build_signals
from training.allmrec.source import RawFiles
from training.allmrec.tuned import TunedOn, TuningData
from training.backbones.texts import encoder_inputs, item_text_vectors
from training.data.dataset import INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE, Dataset
from training.data.fitness import check_fitness, evaluated_users
from training.data.importing.importer import ImportConfig
from training.data.splits import SequenceSplit


class Foundation(Chain):
    """A chain whose stages rest on a dataset and an LLM.

    Args:
        source: a dataset's folder, or raw files that are imported first, found out by their names and columns.
        recipe: how.
        directory: of the run; every stage has a folder in it.
        console: where progress is shown.
        by_time: split the data at one moment for all, in place of each user's last items.
        fitted: another run that has chosen all that is to be chosen; this one holds nothing out.
    """

    def __init__(
        self,
        source: Path,
        recipe: Recipe,
        directory: Path,
        console: Console,
        *,
        by_time: bool = False,
        fitted: Foundation | None = None,
    ) -> None:
        super().__init__(recipe, directory, console)
        self._source, self._by_time, self._fitted = source, by_time, fitted

    def given(self, name: str) -> Fingerprints:
        """See `Chain.given`: `data`, `llm`, `title_list`, and the settings of `signals` and `retrieval`."""
        recipe = self.recipe
        match name:
            case "data":
                return {name: self.fingerprint}
            case "llm":
                return self.llm.identity
            case "title_list":
                return {name: recipe.blend.title_list.model_dump_json()}
            case "signals":
                return {name: recipe.signals.model_dump_json(), **encoder_inputs(recipe.signals.text_encoder)}
            case "retrieval":
                return {name: recipe.retrieval.model_dump_json()}
        return super().given(name)

    @cached_property
    def dataset_path(self) -> Path:
        """The dataset's folder, imported if need be.

        Raises:
            DataError: the source cannot be used.
        """
        if (self._source / INFO_FILE).is_file():
            return self._source
        config = ImportConfig(sources=(self._source,), **self.recipe.data.model_dump())
        raw = RawFiles(config, self.directory / "data", self._console)
        with self.step("import", raw.run.is_done):
            return raw.dataset_path()

    @cached_property
    def dataset(self) -> Dataset:
        """The data."""
        return Dataset.load(self.dataset_path)

    @cached_property
    def split(self) -> SequenceSplit:
        """The data, split. What it cannot support is said before anything is trained.

        Raises:
            DataError: nothing can be trained on it.
            ConfigError: the recipe's LLM was tuned on what is held out.
        """
        if self._fitted is not None:
            return self._fitted.split.whole()
        tuned = TunedOn.of(llm := self.recipe.stage2.llm)
        for warning in tuned.check(llm, self.tuning_data, self.recipe.blend.title_list) if tuned else []:
            self.say(f"warning: {warning}", style="yellow")
        split = SequenceSplit.by_time(self.dataset) if self._by_time else SequenceSplit.from_dataset(self.dataset)
        if self._by_time and self.recipe.backbone.is_external:
            learned = "imported vectors must be of `allmrec-train training-part --time-split`, or test items"
            self.say(f"warning: {learned} are known to them", style="yellow")
        for warning in check_fitness(self.dataset, split):
            self.say(f"warning: {warning}", style="yellow")
        return split

    @property
    def tuning_data(self) -> TuningData:
        """What an LLM that is tuned on the data is to remember."""
        both = hashlib.sha256()
        digests = [hashlib.sha256((self.dataset_path / name).read_bytes()) for name in (INTERACTIONS_FILE, ITEMS_FILE)]
        for digest in digests:
            both.update(digest.digest())
        return TuningData(both.hexdigest(), digests[0].hexdigest(), "time" if self._by_time else "last")

    @cached_property
    def fingerprint(self) -> str:
        """Of the data, and of what is held out."""
        digest = hashlib.sha256()
        for name in (INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE):
            digest.update(hashlib.sha256((self.dataset_path / name).read_bytes()).digest())
        digest.update(b"split by time" if self._by_time else b"")
        digest.update(b"nothing held out" if self._fitted is not None else b"")
        return digest.hexdigest()

    @cached_property
    def evaluated_users(self) -> int:
        """How many users there are to evaluate with."""
        return evaluated_users(self.split)

    @cached_property
    def llm(self) -> LanguageModel:
        """The frozen LLM."""
        if self._fitted is not None:
            return self._fitted.llm
        config = self.recipe.stage2
        llm = load_llm(config.llm, config.device, getattr(torch, config.dtype), config.load_in_8bit)
        for key, tokens in self._title_cuts.items():
            if alike := TitleTokens(llm.tokenizer, self.split.catalogue.titles[1:], tokens).alike:
                looks = f"{alike:,} titles are those of others once prompts cut them at {tokens} tokens: raise {key}"
                self.say(f"warning: {looks}", style="yellow")
        return llm

    @property
    def _title_cuts(self) -> dict[str, int]:
        """At how many tokens prompts cut titles, by the setting that says so."""
        cuts = {
            (CHOICES, "stage2.examples.max_title_tokens"): self.recipe.stage2.examples.max_title_tokens,
            (TITLES, "blend.title_list.max_title_tokens"): self.recipe.blend.title_list.max_title_tokens,
            (INJECTED, "blend.title_list.max_title_tokens"): self.recipe.blend.title_list.max_title_tokens,
        }
        return {key: tokens for (way, key), tokens in cuts.items() if way in self.recipe.blend.ways}

    @cached_property
    def prompt(self) -> PromptConfig:
        """The prompts of stage 2 and ever after."""
        examples = self.recipe.stage2.examples
        return PromptConfig(
            domain=DOMAINS[self.dataset.info.domain],
            history_items=examples.history_items,
            max_title_tokens=examples.max_title_tokens,
            injection=self.recipe.stage2.injection if CHOICES in self.recipe.blend.ways else Injection.NONE,
            title_list=self.recipe.blend.title_list,
        )

    @cached_property
    def signals(self) -> SignalTables:
        """What signals without an LLM are computed from."""
        config = self.recipe.signals
        read = HybridConfig(
            num_items=len(self.split.catalogue),
            text_encoder=config.text_encoder,
            max_text_tokens=config.max_text_tokens,
            word_directions=config.word_directions,
        )
        return build_signals(self.split, self.texts_of(read).numpy(), config)

    def texts_of(self, config: HybridConfig) -> torch.Tensor:
        """(N+1, d_T) text vectors of all items, as the config reads them; kept with the backbone."""
        kept = self.run("backbone").directory
        return item_text_vectors(self.split.catalogue, config, kept, self.recipe.backbone.device)
