"""What all commands have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.errors import ConfigError
from training.cli.catalogue import check_names
from training.cli.main import COMMANDS, app


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_is_for_people(name: str) -> None:
    """What a command raises is for who calls it from Python."""
    shown = CliRunner().invoke(app, [name, "--help"]).output
    assert "Usage:" in shown
    assert "Raises" not in shown


def test_datasets_of_one_name_would_share_a_folder() -> None:
    """The same one twice may stand."""
    check_names([Path("shop/items"), Path("other/tools"), Path("shop/../shop/items")])
    with pytest.raises(ConfigError, match=r"shop/items and other/items are both called 'items'"):
        check_names([Path("shop/items"), Path("other/items")])


@pytest.mark.parametrize(
    "command", [["evaluate-encoder", "--encoder", "embedded"], ["llm2rec"], ["experiment", "table1"]]
)
def test_commands_that_take_several_refuse_them(command: list[str], tmp_path: Path) -> None:
    """Before anything is read."""
    given = [*command, str(tmp_path / "a" / "items"), str(tmp_path / "b" / "items"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()
