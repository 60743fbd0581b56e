"""`section.key=value` settings, as `--set` takes them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from models.errors import ConfigError


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
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {'.'.join(names)}: '{name}' is a value, not a section")
    section[names[-1]] = value
