"""The chain of stages: backbone, stage 1, stage 2, evaluation, export. Each runs only if what it depends on changed.

A stage asks for those before it, so that `Chain.export` alone makes everything; finished stages are loaded.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console

from models.backbones import Backbone
from models.bundle.catalogue_model import CatalogueModel
from models.domain import DOMAINS
from models.llm.loading import LanguageModel, load_llm
from models.prompts.template import PromptConfig
from training.allmrec.export import assemble, export
from training.allmrec.recipe import Recipe
from training.allmrec.stage1 import Aligned, train_stage1
from training.allmrec.stage2.stage import train_stage2
from training.allmrec.stage2.teachers import ItemTexts
from training.backbones.train import train_backbone
from training.data.dataset import INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE, Dataset
from training.data.importing.importer import ImportConfig, prepare
from training.data.importing.report import run_import
from training.data.splits import SequenceSplit
from training.evaluation.evaluate import DecodedVectors, EvaluationReport, evaluate, summary
from training.evaluation.report import JSON_FILE, table, write_report
from training.runs.stage_run import StageRun

STEPS = ("backbone", "stage1", "stage2", "evaluation", "export")
PUBLISHED_FILE = "published.json"


class Chain:
    """One run of a recipe on a dataset.

    Args:
        source: a dataset's folder, or raw files that are imported first, found out by their names and columns.
        recipe: how.
        directory: of the run; every stage has a folder in it.
        console: where progress is shown.
    """

    def __init__(self, source: Path, recipe: Recipe, directory: Path, console: Console) -> None:
        self.recipe, self.directory = recipe, directory
        self._source, self._console = source, console

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
        run = StageRun(self.directory / "data", config, 0, changes)
        with self._step("import", run.is_done):
            if not run.is_done:
                run.start()
                dataset = run_import(planned, self._console)
                dataset.save(run.directory / "dataset")
                run.finish(dataset.info.model_dump(mode="json"))
        return run.directory / "dataset"

    @cached_property
    def dataset(self) -> Dataset:
        """The data."""
        return Dataset.load(self.dataset_path)

    @cached_property
    def split(self) -> SequenceSplit:
        """The data, split."""
        return SequenceSplit.from_dataset(self.dataset)

    @cached_property
    def prompt(self) -> PromptConfig:
        """The prompts of stage 2 and ever after."""
        examples = self.recipe.stage2.examples
        return PromptConfig(
            domain=DOMAINS[self.dataset.info.domain],
            history_items=examples.history_items,
            max_title_tokens=examples.max_title_tokens,
        )

    @cached_property
    def llm(self) -> LanguageModel:
        """The frozen LLM."""
        config = self.recipe.stage2
        return load_llm(config.llm, config.device, getattr(torch, config.dtype))

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen CF backbone."""
        config, run = self.recipe.backbone, self._backbone_run
        with self._step("backbone", run.is_done):
            return train_backbone(self.split, config, run, self._console)

    @cached_property
    def aligned(self) -> Aligned:
        """What stage 1 leaves."""
        backbone, config, run = self.backbone, self.recipe.stage1, self._stage1_run
        with self._step("stage1", run.is_done):
            return train_stage1(self.split, backbone, config, run, self._console)

    @cached_property
    def contents(self) -> CatalogueModel:
        """What the bundle will hold, its projections trained by stage 2."""
        aligned, config, run = self.aligned, self.recipe.stage2, self._stage2_run
        contents = assemble(self.split, aligned, self.llm.token_size, config.device)
        with self._step("stage2", run.is_done):
            texts = ItemTexts(aligned.text_vectors.to(config.device), self._decoded.text)
            train_stage2(self.split, contents, texts, self.llm, self.prompt, config, run, self._console)
        return contents

    @cached_property
    def evaluation(self) -> EvaluationReport:
        """How good all of it is. Shows its table."""
        contents, config, run = self.contents, self.recipe.evaluation, self._evaluation_run
        with self._step("evaluation", run.is_done):
            if run.is_done:
                report = EvaluationReport.model_validate_json((run.directory / JSON_FILE).read_text(encoding="utf-8"))
            else:
                run.start()
                report = evaluate(
                    self.split,
                    contents,
                    self._decoded,
                    self.llm,
                    self.prompt,
                    config,
                    self.dataset.info.name,
                    self._console,
                    run.checkpoint,
                )
                write_report(report, run.directory)
                run.finish(summary(report))
        self._console.print(table(report))
        self._console.print(f"full report: {run.directory / 'report.md'}", highlight=False)
        return report

    def export(self, home: Path) -> Path:
        """Publish the bundle into `home` and return its path, or that of an earlier export of the same results."""
        contents, report, run = self.contents, self.evaluation, self._export_run(home)
        published = run.directory / PUBLISHED_FILE
        done = run.is_done and (path := home / json.loads(published.read_text())["version"]).is_dir()
        with self._step("export", done):
            if done:
                return path
            run.start()
            path = export(
                home,
                contents,
                name=self.dataset.info.name,
                prompt=self.prompt,
                llm=self.llm,
                text_encoder=self.aligned.text_encoder,
                metrics=summary(report),
            )
            run.write_json(PUBLISHED_FILE, {"home": str(home), "version": path.name})
            run.finish({})
        return path

    @cached_property
    def _decoded(self) -> DecodedVectors:
        device = self.recipe.stage2.device
        return DecodedVectors(self.aligned.decoded_item.to(device), self.aligned.decoded_text.to(device))

    @cached_property
    def _data_fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in (INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE):
            digest.update(hashlib.sha256((self.dataset_path / name).read_bytes()).digest())
        return digest.hexdigest()

    @cached_property
    def _backbone_run(self) -> StageRun:
        config = self.recipe.backbone
        return StageRun(self.directory / "backbone", config, config.seed, {"data": self._data_fingerprint})

    @cached_property
    def _stage1_run(self) -> StageRun:
        config = self.recipe.stage1
        return StageRun(self.directory / "stage1", config, config.seed, {"backbone": self._backbone_run.output})

    @cached_property
    def _stage2_run(self) -> StageRun:
        config = self.recipe.stage2
        inputs = {"stage1": self._stage1_run.output, "llm": self.llm.fingerprint}
        if self.llm.interface is not None:
            inputs["interface"] = self.llm.interface.fingerprint
        return StageRun(self.directory / "stage2", config, config.seed, inputs)

    @cached_property
    def _evaluation_run(self) -> StageRun:
        config = self.recipe.evaluation
        return StageRun(self.directory / "evaluation", config, config.seed, {"stage2": self._stage2_run.output})

    def _export_run(self, home: Path) -> StageRun:
        inputs = {"evaluation": self._evaluation_run.output, "home": str(home.resolve())}
        return StageRun(self.directory / "export", self.prompt, 0, inputs)

    @contextmanager
    def _step(self, name: str, done: bool) -> Iterator[None]:
        """Announce a stage and say how long it took."""
        number = f"[{STEPS.index(name) + 1}/{len(STEPS)}] " if name in STEPS else ""
        if done:
            self._console.print(f"{number}{name}: done before, unchanged", markup=False, highlight=False)
            yield
            return
        self._console.print(f"{number}{name}", markup=False, style="bold")
        started = time.monotonic()
        yield
        self._console.print(f"{name} took {time.monotonic() - started:.0f} s", markup=False, highlight=False)
