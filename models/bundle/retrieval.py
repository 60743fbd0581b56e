"""How a bundle finds items before they are ranked: chosen on validation users, kept in the manifest."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from models.config import Config


class Source(StrEnum):
    """Where candidates come from."""

    CF = "cf"
    """Nearest to x_u in the index."""
    FOLLOWED = "followed"
    """What came near items of the history, or their like, in users' sequences."""
    TEXT = "text"
    """Of like text as an item of the history."""


class Retrieval(Config):
    """What candidates are gathered from. The blend without the LLM ranks them all, and the first are kept.

    Attributes:
        sources: whose items are joined.
        depth: so many times what is to be kept each source may give; 1 keeps the index's own if it is the only source.
        validation: Recall@100 on validation users, by the names of the sources that were tried, joined by "+".
    """

    sources: tuple[Source, ...] = (Source.CF,)
    depth: int = Field(1, gt=0)
    validation: dict[str, float] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of these sources at this depth."""
        return "+".join(self.sources) + (f" x{self.depth}" if self.depth > 1 else "")

    @property
    def in_words(self) -> str:
        """One line for people: what was chosen, and what that finds."""
        found = ", ".join(f"{name} {recall:.3f}" for name, recall in self.validation.items())
        return f"retrieval: {self.name}; Recall@100 on validation items: {found}"
