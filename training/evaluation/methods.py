"""Methods: whatever fits on a split and returns rankers to be compared.

To add one, write it in a module of its own and decorate it:

    @method("most_recent")
    def most_recent(split: SequenceSplit, run: RunContext) -> list[Ranker]: ...

Modules of `training.baselines` are found by themselves; other packages name theirs as entry points of the group
`allmrec.methods`. Nothing else changes: evaluation, reports and experiments iterate over rankers and know none by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from types import ModuleType

from models.rankers.base import Ranker
from training.data.splits import SequenceSplit
from training.runs.context import RunContext

GROUP = "allmrec.methods"

Method = Callable[[SequenceSplit, RunContext], Sequence[Ranker]]
METHODS: dict[str, Method] = {}


def method(name: str) -> Callable[[Method], Method]:
    """Register a method as `name`.

    Raises:
        ValueError: another method has that name.
    """

    def register(fit: Method) -> Method:
        if METHODS.get(name, fit) is not fit:
            raise ValueError(f"there are two methods named '{name}'")
        METHODS[name] = fit
        return fit

    return register


def find_methods(folder: ModuleType) -> dict[str, Method]:
    """All methods by name: of the modules in `folder`, of other packages, and those registered already."""
    for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
        importlib.import_module(module.name)
    for entry in entry_points(group=GROUP):
        method(entry.name)(entry.load())
    return dict(METHODS)
