"""Systems: whatever the papers' tables compare. One file a system in this folder; adding one edits no other.

A system is fitted on a bench and then ranks for any shop: the one that it was fitted on, or another one, where it can.

    @system("most_recent", "Most recent", takes="nothing")
    def most_recent(bench: Bench) -> Fitted:
        return lambda shop: MostRecentRanker(shop.catalogue)
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from models.catalogue import Catalogue
from models.engines.base import LLMEngine
from models.prompts.template import PromptConfig
from models.rankers.base import Ranker
from training.baselines.bench import Bench


@dataclass(frozen=True)
class Shop:
    """Whose items are ranked.

    Attributes:
        catalogue: the items.
        prompt: how prompts speak of them.
        engine: of the bench's LLM, started; None for systems that do not ask it.
        foreign: another catalogue than the one that systems were fitted on: its items and users were never seen.
    """

    catalogue: Catalogue
    prompt: PromptConfig
    engine: LLMEngine | None = None
    foreign: bool = False

    @property
    def required_engine(self) -> LLMEngine:
        """The engine.

        Raises:
            ValueError: the system did not say that it asks one.
        """
        if self.engine is None:
            raise ValueError("no LLM's engine was started: the system must be registered with asks_llm=True")
        return self.engine


Fitted = Callable[[Shop], Ranker]
Fit = Callable[[Bench], Fitted]


@dataclass(frozen=True)
class System:
    """One of the papers' systems.

    Attributes:
        id: stable.
        title: as the papers name it.
        takes: what it is made from, for people.
        fit: trains it, or loads what was trained before.
        asks_llm: whether its ranker asks the engine of the frozen LLM.
        tunes_llm: whether it changes the LLM and asks that.
        settings: of the recipe, that make it what it is.
    """

    id: str
    title: str
    takes: str
    fit: Fit
    asks_llm: bool = False
    tunes_llm: bool = False
    settings: tuple[str, ...] = ()

    @property
    def rests_on_llm(self) -> bool:
        """Whether another LLM makes it another system."""
        return self.asks_llm or self.tunes_llm


SYSTEMS: dict[str, System] = {}


def system(
    id: str,  # noqa: A002
    title: str,
    *,
    takes: str,
    asks_llm: bool = False,
    tunes_llm: bool = False,
    settings: tuple[str, ...] = (),
) -> Callable[[Fit], Fit]:
    """Register what fits a system; arguments as the attributes of `System`.

    Raises:
        ValueError: another one has that id.
    """

    def register(fit: Fit) -> Fit:
        found = System(id, title, takes, fit, asks_llm, tunes_llm, settings)
        if SYSTEMS.get(id, found) != found:
            raise ValueError(f"there are two systems named '{id}'")
        SYSTEMS[id] = found
        return fit

    return register


def find_systems(folder: ModuleType) -> Mapping[str, System]:
    """All systems by id, those of the modules in `folder` among them."""
    for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
        importlib.import_module(module.name)
    return dict(SYSTEMS)
