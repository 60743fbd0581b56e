"""The recipes that come with the package."""

from __future__ import annotations

from importlib.resources import files

SHIPPED = files("training.allmrec.recipes")


def shipped_recipes() -> list[str]:
    """Their names."""
    return sorted(entry.name.removesuffix(".toml") for entry in SHIPPED.iterdir() if entry.name.endswith(".toml"))
