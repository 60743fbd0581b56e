"""A chain of stages: each is made once, from what it rests on, in a folder of its own.

The class of a chain is its table. A stage is one entry there, and an attribute: who asks for it gets what the stage
left, trained now or loaded.

    @stage("stage1", rests_on=("backbone",))
    def aligned(self, config: Stage1Config, run: StageRun) -> Making[Aligned]:
        return lambda: train_stage1(self.split, self.backbone, config, run)

It is given the recipe's section of its name, and its folder. What it rests on are stages before it, which are made
first, and what `Chain.given` knows. These, by their fingerprints, and the settings are what the stage is known by:
while they are unchanged it is not trained again. The entry gets ready what it needs and returns what trains or loads:
only that is announced as the stage, and timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

from rich.console import Console

from models.config import Config
from training.allmrec.recipe import Recipe
from training.runs.distributed import processes
from training.runs.stage_run import StageRun

T = TypeVar("T")
Making = Callable[[], T]
"""Trains a stage, or loads it if it is done."""
Prepare = Callable[[Any, Any, StageRun], Making[T]]
"""Given the chain, the stage's section of the recipe and its folder."""
Fingerprints = Mapping[str, str]


def _no_files(_: Any) -> Fingerprints:
    return {}


def _always(_: Recipe) -> bool:
    return True


@dataclass
class Stage(Generic[T]):
    """An entry of a chain; see above.

    Attributes:
        name: of its folder and of its section in the recipe.
        rests_on: names of stages, and of what `Chain.given` knows.
        prepare: how it is made.
        files: fingerprints of the files that its settings name.
        wanted: by a recipe. Where it is not, the attribute is None.
        instead: what those after it rest on where it is not wanted.
        skipped: why it is not wanted, for who expects it; such a stage has a number all the same.
    """

    name: str
    rests_on: tuple[str, ...]
    prepare: Prepare[T]
    files: Callable[[Any], Fingerprints] = _no_files
    wanted: Callable[[Recipe], bool] = _always
    instead: tuple[str, ...] = ()
    skipped: str = ""
    attribute: str = field(default="", init=False)

    def __set_name__(self, chain: type[Chain], attribute: str) -> None:
        self.attribute, self.__doc__ = attribute, self.prepare.__doc__

    @overload
    def __get__(self, chain: None, kind: type[Chain]) -> Self: ...

    @overload
    def __get__(self, chain: Chain, kind: type[Chain]) -> T: ...

    def __get__(self, chain: Chain | None, kind: type[Chain]) -> Self | T:
        if chain is None:
            return self
        made = self._make(chain) if self.wanted(chain.recipe) else self._skip(chain)
        # From now on the instance has it, and does not come here.
        chain.__dict__[self.attribute] = made
        return made

    def _skip(self, chain: Chain) -> Any:
        chain.fingerprints(self.instead)
        if self.skipped:
            chain.say(f"{self.name}: skipped, {self.skipped}")
        return None

    def _make(self, chain: Chain) -> T:
        run = chain.run(self.name)
        make = self.prepare(chain, getattr(chain.recipe, self.name), run)
        with chain.step(self.name, run.is_done):
            return make()


def stage(
    name: str, rests_on: tuple[str, ...], files: Callable[[Any], Fingerprints] = _no_files
) -> Callable[[Prepare[T]], Stage[T]]:
    """An entry that every recipe wants; for the arguments see `Stage`."""
    return lambda prepare: Stage(name, rests_on, prepare, files)


def optional_stage(
    name: str,
    rests_on: tuple[str, ...],
    wanted: Callable[[Recipe], bool],
    files: Callable[[Any], Fingerprints] = _no_files,
    instead: tuple[str, ...] = (),
    skipped: str = "",
) -> Callable[[Prepare[T]], Stage[T | None]]:
    """An entry that is None where a recipe does not want it; for the arguments see `Stage`."""
    return lambda prepare: Stage(name, rests_on, prepare, files, wanted, instead, skipped)


class Chain:
    """Stages on one recipe, in one folder.

    Args:
        recipe: has a section for every stage.
        directory: has a folder for every stage.
        console: where progress is shown, by the first process.
    """

    afterwards: tuple[str, ...] = ()
    """Steps after the last stage, which have numbers too."""

    def __init__(self, recipe: Recipe, directory: Path, console: Console) -> None:
        self.recipe, self.directory = recipe, directory
        self._console = console if processes().is_first else Console(quiet=True)
        self._runs: dict[str, StageRun] = {}

    @classmethod
    def stages(cls) -> dict[str, Stage[Any]]:
        """The table, by names, in order."""
        entries = [entry for kind in reversed(cls.__mro__) for entry in vars(kind).values()]
        return {entry.name: entry for entry in entries if isinstance(entry, Stage)}

    @property
    def wanted(self) -> list[str]:
        """Names of the stages that the recipe wants."""
        return [name for name, entry in self.stages().items() if entry.wanted(self.recipe)]

    def given(self, name: str) -> Fingerprints:
        """Fingerprints of something that stages rest on and that is none.

        Raises:
            KeyError: there is no such thing.
        """
        raise KeyError(name)

    def run(self, name: str) -> StageRun:
        """The folder of a stage that is wanted, once all is made that it rests on."""
        if name not in self._runs:
            entry, config = self.stages()[name], getattr(self.recipe, name)
            inputs = {**self.fingerprints(entry.rests_on), **entry.files(config)}
            self._runs[name] = self.folder(name, config, inputs)
        return self._runs[name]

    def fingerprints(self, names: Iterable[str]) -> dict[str, str]:
        """Of stages, which are made if need be, and of what is given."""
        found: dict[str, str] = {}
        for name in names:
            entry = self.stages().get(name)
            if entry is None:
                found |= self.given(name)
                continue
            getattr(self, entry.attribute)
            wanted = entry.wanted(self.recipe)
            found |= {name: self.run(name).output} if wanted else self.fingerprints(entry.instead)
        return found

    def folder(self, name: str, config: Config, inputs: Fingerprints) -> StageRun:
        """Where a stage is kept: under its name."""
        return StageRun(self.directory / name, config, config.model_dump()["seed"], inputs, self._console)

    @contextmanager
    def step(self, name: str, done: bool) -> Iterator[None]:
        """Announce a stage and say how long it took."""
        if done:
            self.say(f"{self.label(name)}{name}: done before, unchanged")
            yield
            return
        self._console.print(f"{self.label(name)}{name}", markup=False, style="bold")
        started = time.monotonic()
        yield
        self.say(f"{name} took {time.monotonic() - started:.0f} s")

    def label(self, name: str) -> str:
        """What stands before a step's name: its number, if it has one."""
        numbered = [each for each, entry in self.stages().items() if entry.wanted(self.recipe) or entry.skipped]
        steps = [*numbered, *self.afterwards]
        return f"[{steps.index(name) + 1}/{len(steps)}] " if name in steps else ""

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line."""
        self._console.print(text, style=style, markup=False, highlight=False)
