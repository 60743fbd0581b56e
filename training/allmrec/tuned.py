"""What a tuned LLM remembers of what it was tuned on: held-out items must not be among it (ADR 26)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.config import Config
from models.errors import ConfigError

RECORD_FILE = "tuned.json"


class TunedOn(Config):
    """A record in a tuned LLM's folder.

    Attributes:
        llm: fingerprint of the LLM that it was made of.
        data: fingerprint of the interactions and items.
        held_out: of these: each user's last items, or all after a moment.
    """

    llm: str
    data: str
    held_out: Literal["last", "time"]

    @classmethod
    def of(cls, llm: str) -> TunedOn | None:
        """The record of an LLM by name or path; none if it is not a tuned one."""
        path = Path(llm) / RECORD_FILE
        return cls.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None

    def save(self, folder: Path) -> None:
        """Write it into an LLM's folder."""
        (folder / RECORD_FILE).write_text(self.model_dump_json(), encoding="utf-8")

    def check(self, llm: str, data: str, held_out: str) -> str | None:
        """Whether the LLM may be asked about what is held out of `data`; a warning, if there is something to say.

        Args:
            llm: its name.
            data: as of the record, of the data at hand.
            held_out: likewise.

        Raises:
            ConfigError: it was tuned on the same data, of which other items were held out.
        """
        if data == self.data and held_out != self.held_out:
            raise ConfigError(
                f"LLM '{llm}' was tuned on another split of these data, so that it may know what is held out here:"
                " tune one with `allmrec-train tune-llm`, and with --time-split where that is asked for"
            )
        return None if data == self.data else f"LLM '{llm}' was tuned on other data than these"
