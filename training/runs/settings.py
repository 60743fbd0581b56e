"""`section.key=value` settings, as `--set` takes them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from models.config import Config
from models.errors import ConfigError
from training.runs.loop import LoopConfig

Settings = TypeVar("Settings", bound=Config)


def parse_setting(override: str) -> tuple[list[str], Any]:
    """The keys and the value of `a.b=value`; what is no TOML value is text.

    Raises:
        ConfigError: it is written otherwise.
    """
    key, separator, value = override.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not separator or not all(names):
        raise ConfigError(f"--set {override}: write it as section.key=value, such as stage2.minutes=5")
    try:
        return names, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return names, value.strip()


def put_setting(content: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Set content[a][b] for names a, b.

    Raises:
        ConfigError: a is a value, not a section.
    """
    section: Any = content
    for name in names[:-1]:
        # A section that may be left out is none until something is set in it.
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            raise ConfigError(f"--set {'.'.join(names)}: '{name}' is a value, not a section")
    section[names[-1]] = value


def with_changes(config: Settings, changes: Sequence[str], command: str) -> Settings:
    """`config` with `key=value` changes; keys of its `loop` may leave `loop` out.

    Raises:
        ConfigError: one of them is wrong; the message begins with `command`.
    """
    content = config.model_dump()
    for change in changes:
        names, value = parse_setting(change)
        inner = len(names) == 1 and names[0] in LoopConfig.model_fields
        put_setting(content, ["loop", *names] if inner else names, value)
    try:
        return type(config).model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{command}: {error}") from error
