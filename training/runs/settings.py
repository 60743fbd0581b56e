"""Settings from TOML files and `section.key=value` changes, as `--set` takes them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from models.config import Config, explained, keys_at
from models.errors import ConfigError

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


def put_setting(content: dict[str, Any], schema: type[BaseModel], override: str) -> None:
    """Set content[a][b] as `a.b=value` says; keys of a section's `loop` may leave `loop` out.

    Raises:
        ConfigError: it is written otherwise, or a is a value, not a section.
    """
    names, value = parse_setting(override)
    inside, name = names[:-1], names[-1]
    own = keys_at(schema, inside)
    if "loop" in own and name not in own and name in keys_at(schema, [*inside, "loop"]):
        inside.append("loop")
    section: Any = content
    for outer in inside:
        # A section that may be left out is none until something is set in it.
        if section.get(outer) is None:
            section[outer] = {}
        section = section[outer]
        if not isinstance(section, dict):
            raise ConfigError(f"--set {'.'.join(names)}: '{outer}' is a value, not a section")
    section[name] = value


def merged(general: Mapping[str, Any], special: Mapping[str, Any]) -> dict[str, Any]:
    """`general` with what `special` says in its place, section by section."""
    both = dict(general)
    for key, value in special.items():
        inside = both.get(key)
        both[key] = merged(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return both


def with_changes(config: Settings, changes: Sequence[str], command: str, path: Path | None = None) -> Settings:
    """`config` with what a TOML file says in its place, and `section.key=value` changes to that.

    Args:
        config: the defaults.
        changes: keys of a section's `loop` may leave `loop` out: `csft.minutes=5`.
        command: what messages begin with where there is no file.
        path: of the file.

    Raises:
        ConfigError: the file is missing or no TOML, or file or changes say what is no setting.
    """
    where = f"{path}" if path else command
    content = config.model_dump()
    if path is not None:
        try:
            content = merged(content, tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for change in changes:
        put_setting(content, type(config), change)
    try:
        return type(config).model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explained(error, type(config))}") from error
