"""The whole chain: data, backbone, stages 1 and 2, title tokens, user encoder, second, blend, export, evaluation.

Each runs if what it rests on changed (`training.allmrec.chain`). A stage asks for those before it, so that
`Pipeline.export` alone makes everything that a bundle needs; finished stages are loaded. The bundle is published before
anything is evaluated: who wants to serve need not wait. What is exported was fitted again on all interactions, unless
the recipe keeps the model that is evaluated.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.alignment.projection import TitleProjector
from models.alignment.user_head import UserHead
from models.alignment.words import WordEncoder
from models.backbones import Backbone
from models.backbones.hybrid import HybridConfig
from models.bundle.blend import Blends
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.manifest import LLMRecord, Origin
from models.bundle.store import is_intact, publish
from models.errors import DataError
from models.llm.law import TokenLaw
from models.llm.loading import check_llm
from models.prompts.anchor import reading_of
from models.rankers.base import Ranker
from models.rankers.of_model import CHOICES, ENCODER, INJECTED, TITLES
from training.allmrec.blend.config import BlendConfig
from training.allmrec.blend.figures import worth
from training.allmrec.chain import Making, optional_stage, stage
from training.allmrec.contenders import Contenders
from training.allmrec.export import assemble, export
from training.allmrec.foundation import Foundation
from training.allmrec.recipe import Recipe
from training.allmrec.refit import as_chosen, refitted
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage1.config import Stage1Config
from training.allmrec.stage1.stage import train_stage1
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.examples import predicted
from training.allmrec.stage2.held_back import HeldBack
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.stage import train_stage2
from training.allmrec.title_tokens.config import TitleTokensConfig
from training.allmrec.title_tokens.stage import train_title_tokens
from training.allmrec.user_encoder import UserEncoderConfig, train_user_encoder
from training.allmrec.weighed import BLENDS_FILE, TITLES_FILE, Weighed, load_titles
from training.backbones.config import BackboneTrainingConfig
from training.backbones.texts import backbone_inputs, encoder_inputs, item_words
from training.backbones.train import train_backbone
from training.data.splits import Holdout
from training.evaluation.evaluate import EvaluationReport, Occasion, evaluate
from training.evaluation.held_out import HeldOut
from training.evaluation.methods import Method
from training.evaluation.report import JSON_FILE, MARKDOWN_FILE, table, write_report
from training.runs.context import RunContext
from training.runs.distributed import processes
from training.runs.stage_run import StageRun

ANSWERS_FILE = "answers.sqlite"
PUBLISHED_FILE = "published.json"
TRAINED = ("stage2", "title_tokens", "user_encoder", "second")
"""The last stages that train."""


def asks(way: str) -> Callable[[Recipe], bool]:
    """Whether a recipe's LLM is asked in that way."""
    return lambda recipe: way in recipe.blend.ways


class Pipeline(Foundation):
    """One run of a recipe on a dataset; for the arguments see `Foundation`."""

    afterwards: tuple[str, ...] = ("export", "evaluation")

    @stage("backbone", rests_on=("data",), files=backbone_inputs)
    def backbone(self, config: BackboneTrainingConfig, run: StageRun) -> Making[Backbone]:
        """The frozen CF backbone."""
        return lambda: train_backbone(self.split, config, run)

    @stage("stage1", rests_on=("backbone",), files=lambda config: encoder_inputs(config.text_encoder))
    def aligned(self, config: Stage1Config, run: StageRun) -> Making[Aligned]:
        """Items aligned with their text."""
        kept = self.run("backbone").directory
        return lambda: train_stage1(self.split, self.backbone, config, run, kept)

    @optional_stage(
        "stage2",
        rests_on=("stage1", "llm"),
        wanted=asks(CHOICES),
        instead=("stage1", "llm"),
        skipped="the LLM is not asked to choose",
    )
    def projected(self, config: Stage2Config, run: StageRun) -> Making[CatalogueModel]:
        """Users and items aligned with the LLM, for prompts that let it choose among candidates."""
        inputs = self.inputs if run.is_done else replace(self.inputs, held_back=self._stage2_held_back())
        return lambda: train_stage2(inputs, config, run)

    @optional_stage("title_tokens", rests_on=("stage1", "title_list", "llm"), wanted=asks(INJECTED))
    def title_projector(self, config: TitleTokensConfig, run: StageRun) -> Making[TitleProjector]:
        """Users and items injected into lists of titles."""
        inputs = replace(self.inputs, model=self._base)
        if not run.is_done and (config.chosen is None or config.chosen.steps):
            told = replace(inputs.model, title_log_probs=self._title_log_probs)
            inputs = replace(inputs, model=told, held_back=self._held_back(config.examples.held_back, config.seed))
        return lambda: train_title_tokens(inputs, config, run, self.directory / ANSWERS_FILE)

    @optional_stage("user_encoder", rests_on=("stage1", "title_list", "llm"), wanted=asks(ENCODER))
    def user_head(self, config: UserEncoderConfig, run: StageRun) -> Making[UserHead]:
        """User vectors made of the LLM's states."""
        inputs = replace(self.inputs, model=replace(self._base, title_projector=self.title_projector))
        return lambda: train_user_encoder(inputs, config, run, self.directory / ANSWERS_FILE)

    @optional_stage("second", rests_on=("data",), files=backbone_inputs, wanted=lambda recipe: bool(recipe.second))
    def second(self, config: BackboneTrainingConfig, run: StageRun) -> Making[Backbone]:
        """Another CF backbone, for the blend."""
        kept = self.run("backbone").directory
        return lambda: train_backbone(self.split, config, run, kept)

    @stage("blend", rests_on=("signals", "retrieval", *TRAINED))
    def weighed(self, config: BlendConfig, run: StageRun) -> Making[Weighed]:
        """What signals and the LLM are worth, and how they are weighed; from here on nothing is trained together."""
        processes().go_on_alone()
        return lambda: self._weigh(config, run)

    def export(self, home: Path) -> Path:
        """Publish the bundle into `home` and return its path, or that of an earlier export of the same results.

        Raises:
            ConfigError: the LLM cannot be had, or not be asked; said before anything is trained.
        """
        self._check_llm()
        model = self.served.completed(self.weighed.title_log_probs)
        inputs = {
            **self.fingerprints(("blend",)),
            "home": str(home.resolve()),
            **{f"served {name}": output for name, output in self.served.fingerprints(TRAINED).items()},
        }
        run = StageRun(self.directory / "export", self.prompt, 0, inputs, self._console)
        published = run.directory / PUBLISHED_FILE
        done = run.is_done and is_intact(path := home / json.loads(published.read_text())["version"])
        with self.step("export", done):
            if done:
                publish(path)
                return path
            run.start()
            path = export(home, model, self._origin, self.served.aligned.text_encoder)
            run.write_json(PUBLISHED_FILE, {"home": str(home), "version": path.name})
            run.finish({})
        return path

    def _check_llm(self) -> None:
        config = self.recipe.stage2
        check_llm(config.llm, config.device, config.load_in_8bit)

    def evaluate(self, methods: Mapping[str, Method]) -> EvaluationReport:
        """How good all of it is, beside the rankers of `methods`. Shows the table.

        Raises:
            DataError: there is nobody to evaluate with.
            ConfigError: as in `export`.
        """
        self._check_llm()
        if not self.evaluated_users:
            raise DataError(f"nobody in dataset {self.dataset.info.name} can be evaluated: more history a user helps")
        inputs = {**self.fingerprints(("blend",)), "methods": " ".join(sorted(methods))}
        run = self.folder("evaluation", self.recipe.evaluation, inputs)
        with self.step("evaluation", run.is_done):
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

    def label(self, name: str) -> str:
        """See `Chain.label`."""
        return super().label(name) if self._fitted is None else "on all interactions: "

    @cached_property
    def inputs(self) -> Stage2Inputs:
        """What stage 2 and those after it start from."""
        aligned, device = self.aligned, self.recipe.stage2.device
        texts = ItemTexts(aligned.text_vectors.to(device), aligned.placement.decoded_text.to(device))
        model = assemble(self.split, aligned, self.signals, self.llm.token_size, device, self._backbone_words)
        return Stage2Inputs(self.split, model, texts, self.llm, self.prompt)

    @cached_property
    def _base(self) -> CatalogueModel:
        """What stages 1 and 2 leave, where there is a stage 2; others add to it."""
        model = self.projected
        if model is None:
            model = self.inputs.model
            return replace(model, projector=model.projector.eval().requires_grad_(False))
        return replace(model, law=self._law(model))

    def _law(self, model: CatalogueModel) -> TokenLaw | None:
        """How the tokens can be read without the LLM, if it was taught to read them."""
        interface = self.llm.interface
        if interface is None:
            return None
        return TokenLaw.of(interface, self.inputs.composer(model).titles, self.prompt.history_items)

    @cached_property
    def model(self) -> CatalogueModel:
        """All that is trained: of the LLM's part, what the ways to ask it need."""
        return replace(self._base, title_projector=self.title_projector, user_head=self.user_head)

    def completed(self, title_log_probs: np.ndarray) -> CatalogueModel:
        """The model with what blends alone read: another backbone, and (N+1,) what the LLM said of each title."""
        device = self.model.cf_vectors.device
        second = None if self.second is None else self.second.to(device)
        return replace(self.model, second=second, title_log_probs=title_log_probs)

    @cached_property
    def evaluated_model(self) -> CatalogueModel:
        """The model that is evaluated, with all that its blends read."""
        return self.completed(self.weighed.title_log_probs)

    @property
    def blends(self) -> Blends:
        """How signals are weighed, with the LLM and without."""
        return self.weighed.blends

    @property
    def stage2_metrics(self) -> dict[str, Any]:
        """How stage 2 went; empty before."""
        return self.run("stage2").metrics

    @cached_property
    def served(self) -> Pipeline:
        """The run whose model is exported: this one, or, where the recipe says so, one on all interactions."""
        blends = self.blends
        if not self.recipe.refit or not self.evaluated_users:
            return self
        weighed = {signal.id for blend in (blends.llm, blends.blend) for signal in blend.signals}
        recipe = refitted(self.recipe, self._metrics, weighed, self.run("stage1").directory)
        return Pipeline(self.dataset_path, recipe, self.directory / "refit", self._console, fitted=self)

    @property
    def _metrics(self) -> dict[str, dict[str, Any]]:
        """How each stage went, by name."""
        return {name: self.run(name).metrics for name in self.wanted}

    @property
    def _origin(self) -> Origin:
        return Origin(
            name=self.dataset.info.name,
            prompt=self.prompt,
            llm=LLMRecord(name=self.llm.name, fingerprint=self.llm.fingerprint, reading=reading_of(self.llm.tokenizer)),
            text_encoder=self.aligned.text_encoder.name,
            blends=self.blends,
            refitted=self.served is not self,
            metrics=self._metrics,
        )

    def _weigh(self, config: BlendConfig, run: StageRun) -> Weighed:
        if run.is_done:
            return Weighed.load(run.directory)
        run.start()
        if {TITLES, INJECTED} & {*config.ways}:
            np.save(run.directory / TITLES_FILE, self._title_log_probs)
        contenders = self._contenders(self.completed(load_titles(run.directory)))
        run.say(f"at most {config.users:,} users are ranked for without the LLM, and {config.llm_users:,} with it")
        fitted = contenders.fit_blends(config, self.recipe.retrieval)
        run.write_json(BLENDS_FILE, fitted.model_dump(mode="json"))
        run.finish(worth(fitted))
        run.say(fitted.llm_in_words)
        run.say(fitted.retrieval.in_words)
        return Weighed.load(run.directory)

    @cached_property
    def _title_log_probs(self) -> np.ndarray:
        """(N+1,) what the LLM says of each title alone."""
        if isinstance(self._fitted, Pipeline):
            return self._fitted._title_log_probs
        self.say(f"the LLM says how likely each of {len(self.split.catalogue):,} titles is")
        base = self._base
        return processes().alone(lambda: self._contenders(base).title_priors())

    def _contenders(self, model: CatalogueModel, blends: Blends | None = None) -> Contenders:
        ways, answers = self.recipe.blend.ways, self.directory / ANSWERS_FILE
        return Contenders(self.inputs, self.aligned, model, ways, blends, answers, self._backbone_texts)

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
        return self.texts_of(config) if isinstance(config, HybridConfig) else torch.zeros(0)

    @property
    def _backbone_words(self) -> WordEncoder | None:
        """The words of a backbone that reads any."""
        config = self.backbone.config
        if not isinstance(config, HybridConfig):
            return None
        return item_words(self.split.catalogue, config, self.run("backbone").directory)

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
                self.say(f"examples: nothing is held back, {why}")
            return None
        config = as_chosen(config, self.run("backbone").metrics)
        inputs = {**self.fingerprints(("backbone",)), "held back": f"{share} {seed}"}
        run = StageRun.keyed(self.directory / "examples", config, inputs, self._console)
        with self.step("backbone of the examples", run.is_done):
            backbone = train_backbone(split, config, run, self.run("backbone").directory)
        return HeldBack.of(split, backbone, self.aligned, seed)
