"""What a tuned LLM remembers of what it was tuned on: held-out items must not be among it (ADR 26)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from models.config import Config
from models.errors import ConfigError
from models.prompts.title_list import TitleListConfig

RECORD_FILE = "tuned.json"


class TuningData(NamedTuple):
    """What an LLM is tuned on, or asked about.

    Attributes:
        data: fingerprint of the interactions and items.
        interactions: fingerprint of the interactions alone.
        held_out: of these: each user's last items, or all after a moment.
    """

    data: str
    interactions: str
    held_out: Literal["last", "time"]


class TunedOn(Config):
    """A record in a tuned LLM's folder.

    Attributes:
        llm: fingerprint of the LLM that it was made of.
        data: as in `TuningData`, and so are the next two; records of before have none of the interactions alone.
        interactions: likewise.
        held_out: likewise.
        title_list: what it was shown.
    """

    llm: str
    data: str
    interactions: str = ""
    held_out: Literal["last", "time"]
    title_list: TitleListConfig

    @classmethod
    def of(cls, llm: str) -> TunedOn | None:
        """The record of an LLM by name or path; none if it is not a tuned one.

        Raises:
            ConfigError: it cannot be read.
        """
        path = Path(llm) / RECORD_FILE
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ConfigError(f"{path} is damaged, or of another version: tune it again") from error

    @classmethod
    def refuse(cls, llm: str) -> None:
        """Let nothing be made of a tuned LLM that would not remember on what.

        Raises:
            ConfigError: the LLM, by name or path, is one.
        """
        if cls.of(llm) is not None:
            raise ConfigError(f"LLM '{llm}' is a tuned one, and would forget on what: name the one that it was made of")

    def save(self, folder: Path) -> None:
        """Write it into an LLM's folder."""
        (folder / RECORD_FILE).write_text(self.model_dump_json(), encoding="utf-8")

    def check(self, llm: str, asked: TuningData, title_list: TitleListConfig) -> list[str]:
        """Whether the LLM may be asked about what is held out; warnings, if there is something to say.

        Args:
            llm: its name.
            asked: the data at hand.
            title_list: what it will be shown.

        Raises:
            ConfigError: it was tuned on the same interactions, of which other items were held out.
        """
        same = asked.data == self.data or asked.interactions == self.interactions
        if same and asked.held_out != self.held_out:
            raise ConfigError(
                f"LLM '{llm}' was tuned on another split of these data, so that it may know what is held out here:"
                " tune one with `allmrec-train tune-llm`, and with --time-split where that is asked for"
            )
        warnings = [] if asked.data == self.data else [f"LLM '{llm}' was tuned on other data than these"]
        shown = self.title_list.model_dump(mode="json")
        others = [key for key, value in title_list.model_dump(mode="json").items() if value != shown[key]]
        if others:
            wanted = " ".join(f"--set blend.title_list.{key}={json.dumps(shown[key])}" for key in others)
            warnings.append(f"LLM '{llm}' was tuned on other lists than it will be shown; it was tuned by {wanted}")
        return warnings
