"""Runs a table: fits every row, asks it in every scenario, keeps all that it says.

A row's answers stand in a folder that all they follow from names, so another table, or the same command after Ctrl-C,
takes them from there; so do trained stages.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from models.devices import check_devices
from models.domain import DOMAINS
from models.engines.transformers import in_process
from models.errors import ConfigError, DataError
from models.files import written_atomically
from models.rankers.base import Ranker
from models.threads import one_thread
from training import baselines
from training.allmrec.recipe import Recipe, load_recipe
from training.baselines.bench import EVERY, Bench
from training.baselines.port import Fitted, Shop, System, find_systems
from training.data.dataset import Dataset
from training.data.sequences import Sequences
from training.evaluation.held_out import HeldOut
from training.evaluation.measures import UNIFORM
from training.evaluation.protocols import Sampled, ask_all
from training.evaluation.tables import UNREADABLE, ScoreTables
from training.experiments.scenarios import Scenario
from training.experiments.tables import Row, Table
from training.runs.context import RunContext
from training.runs.cost import Cost, metered

BACKBONE_KIND = "backbone.kind"
ANSWERS, COST_FILE, TRAINING_FILE = "answers", "cost.json", "training.json"


@dataclass(frozen=True)
class Ground:
    """What tables are run on, and how.

    Attributes:
        dataset: a dataset's folder, or raw files.
        home: all that is made stands in it.
        recipe: a recipe's name or path.
        settings: of it, before those of rows.
        target: another dataset, for scenarios that ask about one.
        target_name: what that is called.
        console: where progress is shown.
        memory: what benches share.
    """

    dataset: Path
    home: Path
    recipe: str
    console: Console
    settings: Sequence[str] = ()
    target: Path | None = None
    target_name: str | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    def recipe_of(self, row: Row, seed: int) -> Recipe:
        """With what makes the row what it is."""
        own = [*system_of(row).settings, *row.settings]
        given = [setting for setting in self.settings if _key(setting) == BACKBONE_KIND]
        if given and any(_key(setting) == BACKBONE_KIND for setting in own):
            raise ConfigError(
                f"{given[0]}: the row '{row.title}' has a backbone of its own, so this table cannot be given one;"
                " `fit` sets one of yours beside what is made of it"
            )
        recipe = load_recipe(self.recipe, [*self.settings, f"seed={seed}", *own])
        check_devices(recipe.devices)
        known = {EVERY, *find_systems(baselines)}
        for name in sorted(set(recipe.baselines) - known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"baselines.{name}: there is no such system; {hint}")
        return recipe

    def bench(self, row: Row, scenario: Scenario, seed: int) -> Bench:
        """What the row is fitted with; the same as long as neither it nor what is learned from changes."""
        teach = scenario.teach(seed)
        key = (row, teach[0], seed)
        if self.memory.get("bench", (None,))[0] != key:
            recipe = self.recipe_of(row, seed)
            self.memory["bench"] = key, Bench(self.dataset, recipe, self.home, self.console, teach, self.memory)
        bench: Bench = self.memory["bench"][1]
        return bench

    def fitted(self, row: Row, bench: Bench) -> Fitted:
        """The row's system, fitted with its bench; once, as long as that stays."""
        if self.memory.get("fitted", (None,))[0] is not bench:
            self.memory["fitted"] = bench, system_of(row).fit(bench)
        fitted: Fitted = self.memory["fitted"][1]
        return fitted

    @property
    def name(self) -> str:
        """Of the dataset: what its runs are called, as two imported from files of one name have one name inside."""
        return self.home.name

    def asked_dataset(self, scenario: Scenario, bench: Bench) -> Dataset:
        """Whose users are asked about.

        Raises:
            ConfigError: a second dataset is needed and none was given.
        """
        own = bench.dataset
        if not scenario.foreign:
            return own
        if self.target is None:
            raise ConfigError("a cross-domain table asks about a second dataset: give it with --target")
        if "target" not in self.memory:
            path = Bench(self.target, bench.recipe, self.home / "target", self.console).dataset_path
            self.memory["target"] = Dataset.load(path)
        target: Dataset = self.memory["target"]
        return target


@dataclass(frozen=True)
class Answers:
    """What one row said in one scenario, with one seed.

    Attributes:
        directory: holds the scores.
        ranker: whose they are.
        users: how many it was asked about.
        training: what it cost to fit.
        asking: what it cost to ask.
    """

    directory: Path
    ranker: str
    users: int
    training: Cost
    asking: Cost


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()


def system_of(row: Row) -> System:
    """The row's system.

    Raises:
        ConfigError: there is none of that name.
    """
    systems = find_systems(baselines)
    if row.system not in systems:
        raise ConfigError(f"system '{row.system}' is unknown: choose one of {', '.join(sorted(systems))}")
    return systems[row.system]


def run_table(table: Table, ground: Ground, seeds: int) -> dict[str, dict[str, list[Answers]]]:
    """All answers of a table, by row title and scenario id, one a seed.

    Raises:
        ConfigError: a second dataset is needed and none was given.
        DataError: a scenario has too little data.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    found: dict[str, dict[str, list[Answers]]] = {}
    ground.asked_dataset(table.scenarios[0], ground.bench(table.rows[0], table.scenarios[0], 0))
    steps = len(table.rows) * len(table.scenarios) * seeds
    for seed in range(seeds):
        for row in table.rows:
            for scenario in table.scenarios:
                answers = found.setdefault(row.title, {}).setdefault(scenario.id, [])
                done = sum(len(said) for by_scenario in found.values() for said in by_scenario.values())
                where = f"[{done + 1}/{steps}] {table.id}, seed {seed}: {row.title}, {scenario.title}"
                ground.console.print(where, markup=False, highlight=False, style="bold")
                answers.append(ask_row(row, scenario, ground, seed))
    return found


def possible(table: Table, ground: Ground) -> Table:
    """The table without the columns whose scenarios have too little data, which is said.

    Raises:
        DataError: that is so of all.
    """
    lacking: dict[str, DataError] = {}
    for scenario in table.scenarios:
        try:
            bench = ground.bench(table.rows[0], scenario, 0)
            _ = bench.split
            scenario.asked(ground.asked_dataset(scenario, bench), 0, bench.recipe.evaluation.users)
        except DataError as error:
            lacking[scenario.id] = error
    columns = tuple(column for column in table.columns if column.scenario.id not in lacking)
    if not columns:
        raise next(iter(lacking.values()))
    for said in lacking.values():
        ground.console.print(f"a part of {table.id} is left out: {said}", style="yellow", markup=False, highlight=False)
    return replace(table, columns=columns)


def ask_row(row: Row, scenario: Scenario, ground: Ground, seed: int) -> Answers:
    """What a row says in a scenario: from its folder, or asked now. Errors as in `run_table`."""
    bench = ground.bench(row, scenario, seed)
    dataset = ground.asked_dataset(scenario, bench)
    _ = bench.split  # What it lacks is said before anybody is asked.
    evaluation = bench.recipe.evaluation
    held_out = scenario.asked(dataset, seed, evaluation.users)
    context = RunContext(ground.home / ANSWERS / scenario.id / row.system, ground.console)
    prompt = bench.prompt.model_copy(update={"domain": DOMAINS[dataset.info.domain]})
    shop = Shop(held_out.catalogue, prompt, foreign=scenario.foreign)
    context.fingerprint = _fingerprint(row, bench, shop, held_out)
    context.directory /= context.fingerprint[:12]
    said = _kept(context.directory)
    if said is None:
        fitted = ground.fitted(row, bench)
        if (context.directory / TRAINING_FILE).exists():
            ground.console.print("what was said before is damaged, and asked again", style="yellow")
            shutil.rmtree(context.directory, ignore_errors=True)
        context.directory.mkdir(parents=True, exist_ok=True)
        asking = _Asking(bench, shop, held_out, context)
        with one_thread(), metered(context.directory / COST_FILE):
            ranker = asyncio.run(asking.ask(fitted, system_of(row).asks_llm))
        asked = min(evaluation.llm_users, len(held_out)) if ranker.needs_llm else len(held_out)
        content = {"ranker": ranker.id, "users": asked, "training": bench.cost.model_dump()}
        with written_atomically(context.directory / TRAINING_FILE) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        said = _kept(context.directory)
        if said is None:
            raise DataError(f"{context.directory} cannot be read again: run the command again, and look at the disk")
    return said


@dataclass(frozen=True)
class _Asking:
    bench: Bench
    shop: Shop
    held_out: HeldOut
    context: RunContext

    async def ask(self, fitted: Fitted, asks_llm: bool) -> Ranker:
        async with AsyncExitStack() as stack:
            shop = self.shop
            if asks_llm:
                shop = replace(shop, engine=await stack.enter_async_context(in_process(self.bench.llm)))
            ranker = fitted(shop)
            fewer = self.bench.recipe.evaluation.llm_users
            await ask_all(Sampled(UNIFORM, self.held_out), [ranker], fewer, self.context)
            return ranker


def _kept(directory: Path) -> Answers | None:
    """What is in a folder, if all of it can be read."""
    try:
        kept: Mapping[str, Any] = json.loads((directory / TRAINING_FILE).read_text(encoding="utf-8"))
        training = Cost.model_validate(kept["training"])
        asking = Cost.model_validate_json((directory / COST_FILE).read_text(encoding="utf-8"))
        if kept["ranker"] not in ScoreTables.load(UNIFORM, directory):
            return None
        return Answers(directory, kept["ranker"], kept["users"], training, asking)
    except (*UNREADABLE, TypeError):
        return None


def _fingerprint(row: Row, bench: Bench, shop: Shop, held_out: HeldOut) -> str:
    """Of all that answers follow from."""
    catalogue, system = shop.catalogue, system_of(row)
    texts = json.dumps([catalogue.titles, catalogue.descriptions, catalogue.categories])
    recipe = bench.recipe.model_dump(mode="json", include={"seed", "backbone", "stage1", "stage2"})
    given, evaluation = bench.recipe.baselines, bench.recipe.evaluation
    recipe["baseline"] = [given.get(EVERY), given.get(row.system)]
    told = Sequences.of(held_out.users.histories)
    asked: list[Any] = [
        hashlib.sha256(array.tobytes()).hexdigest() for array in (held_out.candidates.items, told.items, told.lengths)
    ]
    asked += [hashlib.sha256(texts.encode()).hexdigest(), shop.prompt.model_dump(mode="json")]
    made_from = bench.identities(system.id, system.rests_on_llm)
    identity = [system.id, recipe, bench.fingerprint, made_from, evaluation.llm_users, asked]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
