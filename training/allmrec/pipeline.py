"""The chain of stages: backbone, stage 1, stage 2, blend, export, evaluation. Each runs if what it depends on changed.

What is exported was fitted again on all interactions, unless the recipe keeps the model that is evaluated.

A stage asks for those before it, so that `Pipeline.export` alone makes everything that a bundle needs; finished stages
are loaded. The bundle is published before anything is evaluated: who wants to serve need not wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from models.alignment.words import WordEncoder
from models.backbones import Backbone
from models.backbones.hybrid import HybridConfig
from models.bundle.blend import Blends
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.manifest import LLMRecord, Origin
from models.bundle.signal_tables import SignalTables
from models.domain import DOMAINS
from models.errors import DataError
from models.llm.law import TokenLaw
from models.llm.loading import LanguageModel, load_llm
from models.prompts.layout import Injection
from models.prompts.template import PromptConfig
from models.rankers.base import Ranker
from models.rankers.of_model import CHOICES, ENCODER, INJECTED, SECOND, TITLES
from training.allmrec.blend import worth
from training.allmrec.contenders import Contenders
from training.allmrec.export import assemble, export
from training.allmrec.recipe import Recipe
from training.allmrec.refit import Refit, as_chosen
from training.allmrec.signals import build_signals
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage1.stage import train_stage1
from training.allmrec.stage2.examples import predicted
from training.allmrec.stage2.held_back import HeldBack
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.stage import train_stage2
from training.allmrec.title_tokens.stage import train_title_tokens
from training.allmrec.user_encoder import train_user_encoder
from training.backbones.texts import backbone_inputs, encoder_inputs, item_text_vectors, item_words
from training.backbones.train import train_backbone
from training.data.dataset import INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE, Dataset
from training.data.fitness import check_fitness, evaluated_users
from training.data.importing.importer import Import, ImportConfig, prepare
from training.data.importing.report import run_import
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.evaluate import EvaluationReport, Occasion, evaluate
from training.evaluation.held_out import HeldOut
from training.evaluation.methods import Method
from training.evaluation.report import JSON_FILE, MARKDOWN_FILE, table, write_report
from training.runs.context import RunContext
from training.runs.distributed import processes
from training.runs.stage_run import StageRun

STEPS = ("backbone", "stage1", "stage2", "title_tokens", "user_encoder", "second", "blend", "export", "evaluation")
BLENDS_FILE = "blends.json"
TITLES_FILE = "title_log_probs.npy"
ANSWERS_FILE = "answers.sqlite"
PUBLISHED_FILE = "published.json"


class Pipeline:
    """One run of a recipe on a dataset.

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
        fitted: Pipeline | None = None,
    ) -> None:
        self.recipe, self.directory, self._by_time, self._fitted = recipe, directory, by_time, fitted
        self._source, self._console = source, console if processes().is_first else Console(quiet=True)

    @cached_property
    def dataset_path(self) -> Path:
        """The dataset's folder, imported if need be.

        Raises:
            DataError: the source cannot be used.
        """
        if (self._source / INFO_FILE).is_file():
            return self._source
        config = ImportConfig(sources=(self._source,), **self.recipe.data.model_dump())
        planned = prepare(config)
        changes = {str(path): f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in planned.files}
        run = StageRun(self.directory / "data", config, 0, changes, self._console)
        with self._step("import", run.is_done):
            if not run.is_done:
                run.alone(lambda: self._import(planned, run))
        return run.directory / "dataset"

    def _import(self, planned: Import, run: StageRun) -> None:
        run.start()
        dataset = run_import(planned, self._console)
        dataset.save(run.directory / "dataset")
        run.finish(dataset.info.model_dump(mode="json"))

    @cached_property
    def dataset(self) -> Dataset:
        """The data."""
        return Dataset.load(self.dataset_path)

    @cached_property
    def split(self) -> SequenceSplit:
        """The data, split. What it cannot support is said before anything is trained.

        Raises:
            DataError: nothing can be trained on it.
        """
        if self._fitted is not None:
            return self._fitted.split.whole()
        split = SequenceSplit.by_time(self.dataset) if self._by_time else SequenceSplit.from_dataset(self.dataset)
        for warning in check_fitness(self.dataset, split):
            self._console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
        return split

    @cached_property
    def prompt(self) -> PromptConfig:
        """The prompts of stage 2 and ever after."""
        examples = self.recipe.stage2.examples
        return PromptConfig(
            domain=DOMAINS[self.dataset.info.domain],
            history_items=examples.history_items,
            max_title_tokens=examples.max_title_tokens,
            injection=self.recipe.stage2.injection if self._chooses else Injection.NONE,
            title_list=self.recipe.blend.title_list,
        )

    @cached_property
    def llm(self) -> LanguageModel:
        """The frozen LLM."""
        if self._fitted is not None:
            return self._fitted.llm
        config = self.recipe.stage2
        return load_llm(config.llm, config.device, getattr(torch, config.dtype), config.load_in_8bit)

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen CF backbone."""
        with self._step("backbone", self._backbone_run.is_done):
            return train_backbone(self.split, self.recipe.backbone, self._backbone_run)

    @cached_property
    def second(self) -> Backbone | None:
        """Another CF backbone, for the blend; None if the recipe has none."""
        config, run = self.recipe.second, self._second_run
        if config is None:
            return None
        with self._step("second", run.is_done):
            return train_backbone(self.split, config, run, self._backbone_run.directory)

    @cached_property
    def aligned(self) -> Aligned:
        """What stage 1 leaves."""
        backbone = self.backbone
        with self._step("stage1", self._stage1_run.is_done):
            kept = self._backbone_run.directory
            return train_stage1(self.split, backbone, self.recipe.stage1, self._stage1_run, kept)

    @cached_property
    def model(self) -> CatalogueModel:
        """All that is trained: of the LLM's part, what the ways to ask it need."""
        model = self._with_title_tokens(self._projected)
        if not self._encodes:
            return model
        inputs = replace(self._stage2_inputs, model=model)
        with self._step("user_encoder", self._encoder_run.is_done):
            answers = self.directory / ANSWERS_FILE
            head = train_user_encoder(inputs, self.recipe.user_encoder, self._encoder_run, answers)
        return replace(model, user_head=head)

    def _with_title_tokens(self, model: CatalogueModel) -> CatalogueModel:
        """The model with projections into lists of titles, if the LLM is asked in that way."""
        config, run = self.recipe.title_tokens, self._titles_run
        if INJECTED not in self.recipe.blend.ways:
            return model
        inputs = replace(self._stage2_inputs, model=model)
        if not run.is_done and (config.chosen is None or config.chosen.steps):
            inputs = replace(inputs, model=replace(model, title_log_probs=self._title_log_probs))
            inputs = replace(inputs, held_back=self._held_back(config.examples.held_back, config.seed))
        with self._step("title_tokens", run.is_done):
            projector = train_title_tokens(inputs, config, run, self.directory / ANSWERS_FILE)
        return replace(model, title_projector=projector)

    @cached_property
    def _title_log_probs(self) -> np.ndarray:
        """(N+1,) what the LLM says of each title alone."""
        if self._fitted is not None:
            return self._fitted._title_log_probs
        self._console.print("the LLM says how likely each title is", markup=False, highlight=False)
        return processes().alone(lambda: self._contenders(self._projected).title_priors())

    @cached_property
    def _projected(self) -> CatalogueModel:
        """What stages 1 and 2 leave: projections are trained if the LLM chooses among candidates that it reads."""
        inputs = self._stage2_inputs
        if not self._chooses:
            self._console.print("stage2: skipped, the LLM is not asked to choose", markup=False, highlight=False)
            return replace(inputs.model, projector=inputs.model.projector.eval().requires_grad_(False))
        if not self._stage2_run.is_done:
            inputs = replace(inputs, held_back=self._stage2_held_back())
        with self._step("stage2", self._stage2_run.is_done):
            model = train_stage2(inputs, self.recipe.stage2, self._stage2_run)
        return replace(model, law=self._law(model))

    def _law(self, model: CatalogueModel) -> TokenLaw | None:
        """How the tokens can be read without the LLM, if it was taught to read them."""
        interface = self.llm.interface
        if interface is None:
            return None
        return TokenLaw.of(interface, self._stage2_inputs.composer(model).titles, self.prompt.history_items)

    @property
    def stage2_metrics(self) -> dict[str, Any]:
        """How stage 2 went; empty before."""
        return self._stage2_run.metrics

    @cached_property
    def blends(self) -> Blends:
        """What signals and the LLM are worth, and how they are weighed; from here on nothing is trained together."""
        _, _, run = self.model, self.second, self._blend_run
        processes().go_on_alone()
        with self._step("blend", run.is_done):
            if not run.is_done:
                run.start()
                contenders = self._contenders(self._asked_model(run))
                fitted = contenders.fit_blends(self.recipe.blend, self.recipe.retrieval)
                run.write_json(BLENDS_FILE, fitted.model_dump(mode="json"))
                run.finish(worth(fitted))
                run.say(fitted.llm_in_words)
                run.say(fitted.retrieval.in_words)
            return Blends.model_validate_json((run.directory / BLENDS_FILE).read_text(encoding="utf-8"))

    @cached_property
    def evaluated_model(self) -> CatalogueModel:
        """The model with what the LLM once said of each title, if the blend wants to know."""
        _ = self.blends
        return self._complete(self.model, self.second, self._blend_run)

    def _asked_model(self, run: StageRun) -> CatalogueModel:
        """The model, once the LLM has been asked how likely each title is; keeps that with the blend."""
        model = self.model
        if {TITLES, INJECTED} & {*self.recipe.blend.ways}:
            np.save(run.directory / TITLES_FILE, self._title_log_probs)
        return self._complete(model, self.second, run)

    @staticmethod
    def _complete(model: CatalogueModel, second: Backbone | None, run: StageRun) -> CatalogueModel:
        """The model with what blends alone read: another backbone, and what the LLM said of each title."""
        path = run.directory / TITLES_FILE
        model = replace(model, second=None if second is None else second.to(model.cf_vectors.device))
        return replace(model, title_log_probs=np.load(path)) if path.is_file() else model

    def _contenders(self, model: CatalogueModel, blends: Blends | None = None) -> Contenders:
        ways, answers = self.recipe.blend.ways, self.directory / ANSWERS_FILE
        return Contenders(self._stage2_inputs, self.aligned, model, ways, blends, answers, self._backbone_texts)

    @property
    def _chooses(self) -> bool:
        """Whether the LLM is asked in the way that needs stage 2."""
        return CHOICES in self.recipe.blend.ways

    @property
    def _encodes(self) -> bool:
        """Whether the LLM encodes users."""
        return ENCODER in self.recipe.blend.ways

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
        return build_signals(self.split, self._texts_of(read).numpy(), config)

    @cached_property
    def served(self) -> Pipeline:
        """The run whose model is exported: this one, or, where the recipe says so, one on all interactions."""
        _ = self.model, self.blends
        if not self.recipe.refit or not self.evaluated_users:
            return self
        recipe = self.recipe
        refit = Refit.of(
            (recipe.backbone, self._backbone_run.metrics),
            (recipe.second, self._second_run.metrics) if recipe.second and SECOND in self._weighed else None,
            (recipe.stage1, self._stage1_run.metrics),
            (recipe.stage2, self._stage2_run.metrics),
            (recipe.title_tokens, self._titles_run.metrics if INJECTED in recipe.blend.ways else {}),
            (recipe.user_encoder, self._encoder_run.metrics if self._encodes else {}),
            self._stage1_run.directory,
        )
        ways = tuple(way for way in recipe.blend.ways if way not in (ENCODER, INJECTED) or way in self._weighed)
        changes = {name: getattr(refit, name) for name in Refit.model_fields}
        changed = recipe.model_copy(update={**changes, "blend": recipe.blend.model_copy(update={"ways": ways})})
        return Pipeline(self.dataset_path, changed, self.directory / "refit", self._console, fitted=self)

    @property
    def _weighed(self) -> set[str]:
        """Ids of the signals that either blend has."""
        return {signal.id for blend in (self.blends.llm, self.blends.blend) for signal in blend.signals}

    def export(self, home: Path) -> Path:
        """Publish the bundle into `home` and return its path, or that of an earlier export of the same results."""
        model = self._complete(self.served.model, self.served.second, self._blend_run)
        run = self._export_run(home)
        published = run.directory / PUBLISHED_FILE
        done = run.is_done and (path := home / json.loads(published.read_text())["version"]).is_dir()
        with self._step("export", done):
            if done:
                return path
            run.start()
            path = export(home, model, self._origin, self.served.aligned.text_encoder)
            run.write_json(PUBLISHED_FILE, {"home": str(home), "version": path.name})
            run.finish({})
        return path

    @cached_property
    def evaluated_users(self) -> int:
        """How many users there are to evaluate with."""
        return evaluated_users(self.split)

    def evaluate(self, methods: Mapping[str, Method]) -> EvaluationReport:
        """How good all of it is, beside the rankers of `methods`. Shows the table.

        Raises:
            DataError: there is nobody to evaluate with.
        """
        if not self.evaluated_users:
            raise DataError(f"nobody in dataset {self.dataset.info.name} can be evaluated: more history a user helps")
        run = self._evaluation_run(methods)
        with self._step("evaluation", run.is_done):
            if run.is_done:
                report = EvaluationReport.model_validate_json((run.directory / JSON_FILE).read_text(encoding="utf-8"))
            else:
                run.start()
                report = self._evaluate(methods, run)
                write_report(report, run.directory)
                run.finish({})
        self._console.print(table(report))
        self._console.print(f"full report: {run.directory / MARKDOWN_FILE}", highlight=False, soft_wrap=True)
        return report

    def _evaluate(self, methods: Mapping[str, Method], run: StageRun) -> EvaluationReport:
        config = self.recipe.evaluation
        others: list[Ranker] = []
        for name, fit in methods.items():
            others += fit(self.split, RunContext(run.directory / name, self._console))
        contenders = self._contenders(self.evaluated_model, self.blends)
        everyone = HeldOut.of(self.split, Holdout.TEST, config.seed)
        validation = HeldOut.of(self.split, Holdout.VALIDATION, config.seed, config.users)
        report = evaluate(Occasion(everyone, validation), contenders.among(others), config, run)
        genres = asyncio.run(contenders.genres(config.users, config.seed))
        names = {"dataset": self.dataset.info.name, "llm": self.llm.name, "by_time": self._by_time}
        return report.model_copy(update={**names, **dict(genres)})

    def _backbone_texts(self, backbone: Backbone) -> torch.Tensor:
        """(N+1, d_T) the text vectors of a backbone that reads texts."""
        config = backbone.config
        return self._texts_of(config) if isinstance(config, HybridConfig) else torch.zeros(0)

    @property
    def _backbone_words(self) -> WordEncoder | None:
        """The words of a backbone that reads any."""
        config = self.backbone.config
        if not isinstance(config, HybridConfig):
            return None
        return item_words(self.split.catalogue, config, self._backbone_run.directory)

    def _texts_of(self, config: HybridConfig) -> torch.Tensor:
        device = self.recipe.backbone.device
        return item_text_vectors(self.split.catalogue, config, self._backbone_run.directory, device)

    @cached_property
    def _stage2_inputs(self) -> Stage2Inputs:
        aligned, device = self.aligned, self.recipe.stage2.device
        texts = ItemTexts(aligned.text_vectors.to(device), aligned.placement.decoded_text.to(device))
        model = assemble(self.split, aligned, self.signals, self.llm.token_size, device, self._backbone_words)
        return Stage2Inputs(self.split, model, texts, self.llm, self.prompt)

    def _stage2_held_back(self) -> HeldBack | None:
        """By what stage 2's examples are told, if there will be any and the recipe holds any back."""
        config = self.recipe.stage2
        chosen = config.chosen
        if chosen is not None and not chosen.steps and not chosen.rehearsal_steps:
            return None
        return self._held_back(config.examples.held_back, config.seed)

    def _held_back(self, share: float, seed: int) -> HeldBack | None:
        """By what examples are told, if a share of positions is held back for them."""
        config = self.recipe.backbone
        split = self.split.holding_back(share, seed)
        if not share or config.is_external or not len(predicted(self.split, split).items):
            if share:
                why = "the backbone is imported" if config.is_external else "there is too little"
                self._console.print(f"examples: nothing is held back, {why}", markup=False, highlight=False)
            return None
        config = as_chosen(config, self._backbone_run.metrics)
        inputs = {"backbone": self._backbone_run.output, "held back": f"{share} {seed}"}
        run = StageRun.keyed(self.directory / "examples", config, inputs, self._console)
        with self._step("backbone of the examples", run.is_done):
            backbone = train_backbone(split, config, run, self._backbone_run.directory)
        return HeldBack.of(split, backbone, self.aligned, seed)

    @property
    def _origin(self) -> Origin:
        blends = self.blends
        runs = {
            "backbone": self._backbone_run,
            **({"second": self._second_run} if self.recipe.second else {}),
            "stage1": self._stage1_run,
            **({"stage2": self._stage2_run} if self._chooses else {}),
            **({"title_tokens": self._titles_run} if INJECTED in self.recipe.blend.ways else {}),
            **({"user_encoder": self._encoder_run} if self._encodes else {}),
            "blend": self._blend_run,
        }
        return Origin(
            name=self.dataset.info.name,
            prompt=self.prompt,
            llm=LLMRecord(name=self.llm.name, fingerprint=self.llm.fingerprint),
            text_encoder=self.aligned.text_encoder.name,
            blends=blends,
            refitted=self.served is not self,
            metrics={stage: run.metrics for stage, run in runs.items()},
        )

    @cached_property
    def _data_fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in (INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE):
            digest.update(hashlib.sha256((self.dataset_path / name).read_bytes()).digest())
        digest.update(b"split by time" if self._by_time else b"")
        digest.update(b"nothing held out" if self._fitted is not None else b"")
        return digest.hexdigest()

    @cached_property
    def _backbone_run(self) -> StageRun:
        inputs = {"data": self._data_fingerprint, **backbone_inputs(self.recipe.backbone)}
        return self._stage_run("backbone", self.recipe.backbone, inputs)

    @cached_property
    def _second_run(self) -> StageRun:
        config = self.recipe.second or self.recipe.backbone
        return self._stage_run("second", config, {"data": self._data_fingerprint, **backbone_inputs(config)})

    @cached_property
    def _stage1_run(self) -> StageRun:
        config = self.recipe.stage1
        inputs = {"backbone": self._backbone_run.output, **encoder_inputs(config.text_encoder)}
        return self._stage_run("stage1", config, inputs)

    @cached_property
    def _stage2_run(self) -> StageRun:
        inputs = {"stage1": self._stage1_run.output, **self.llm.identity}
        return self._stage_run("stage2", self.recipe.stage2, inputs)

    @cached_property
    def _titles_run(self) -> StageRun:
        shown = self.recipe.blend.title_list.model_dump_json()
        inputs = {"stage1": self._stage1_run.output, "title_list": shown, **self.llm.identity}
        return self._stage_run("title_tokens", self.recipe.title_tokens, inputs)

    @cached_property
    def _encoder_run(self) -> StageRun:
        shown = self.recipe.blend.title_list.model_dump_json()
        inputs = {"stage1": self._stage1_run.output, "title_list": shown, **self.llm.identity}
        return self._stage_run("user_encoder", self.recipe.user_encoder, inputs)

    @property
    def _trained(self) -> dict[str, str]:
        """Fingerprints of the last stages that train, and of the LLM."""
        others = {"user_encoder": self._encoder_run.output} if self._encodes else {}
        if self.recipe.second:
            others["second"] = self._second_run.output
        if INJECTED in self.recipe.blend.ways:
            others["title_tokens"] = self._titles_run.output
        if self._chooses:
            return {"stage2": self._stage2_run.output, **others}
        return {"stage1": self._stage1_run.output, **self.llm.identity, **others}

    @cached_property
    def _blend_run(self) -> StageRun:
        others = {"signals": self.recipe.signals, "retrieval": self.recipe.retrieval}
        inputs = {name: config.model_dump_json() for name, config in others.items()}
        inputs |= encoder_inputs(self.recipe.signals.text_encoder)
        return self._stage_run("blend", self.recipe.blend, {**inputs, **self._trained})

    def _export_run(self, home: Path) -> StageRun:
        served = {f"served {name}": output for name, output in self.served._trained.items()}
        inputs = {"blend": self._blend_run.output, "home": str(home.resolve()), **served}
        return StageRun(self.directory / "export", self.prompt, 0, inputs, self._console)

    def _evaluation_run(self, methods: Sequence[str] | Mapping[str, Method]) -> StageRun:
        _ = self.blends
        inputs = {"blend": self._blend_run.output, "methods": " ".join(sorted(methods))}
        return self._stage_run("evaluation", self.recipe.evaluation, inputs)

    def _stage_run(self, stage: str, config: Any, inputs: Mapping[str, str]) -> StageRun:
        return StageRun(self.directory / stage, config, config.seed, inputs, self._console)

    @contextmanager
    def _step(self, name: str, done: bool) -> Iterator[None]:
        """Announce a stage and say how long it took."""
        optional = {"user_encoder": ENCODER, "title_tokens": INJECTED}
        steps = [step for step in STEPS if optional.get(step, CHOICES) in (CHOICES, *self.recipe.blend.ways)]
        steps = [step for step in steps if step != "second" or self.recipe.second]
        number = f"[{steps.index(name) + 1}/{len(steps)}] " if name in steps else ""
        if self._fitted is not None:
            number = "on all interactions: "
        if done:
            self._console.print(f"{number}{name}: done before, unchanged", markup=False, highlight=False)
            yield
            return
        self._console.print(f"{number}{name}", markup=False, style="bold")
        started = time.monotonic()
        yield
        self._console.print(f"{name} took {time.monotonic() - started:.0f} s", markup=False, highlight=False)
