"""What all commands have in common."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from safetensors import SafetensorError
from typer.testing import CliRunner

from models.errors import ConfigError
from tests.training.ground import write_shop
from training.cli.catalogue import check_names
from training.cli.main import COMMANDS, app


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_is_for_people(name: str) -> None:
    """What a command raises is for who calls it from Python."""
    shown = CliRunner().invoke(app, [name, "--help"]).output
    assert "Usage:" in shown
    assert "Raises" not in shown


def test_datasets_of_one_name_would_share_a_folder() -> None:
    """So would the same one, given twice."""
    check_names([Path("shop/items"), Path("other/tools")])
    with pytest.raises(ConfigError, match="are both called 'items'"):
        check_names([Path("shop/items"), Path("shop/items")])
    with pytest.raises(ConfigError, match=r"shop/items and other/items are both called 'items'"):
        check_names([Path("shop/items"), Path("other/items")])


@pytest.mark.parametrize(
    "command", [["evaluate-encoder", "--encoder", "embedded"], ["llm2rec"], ["experiment", "table1"], ["results"]]
)
def test_commands_that_take_several_refuse_them(command: list[str], tmp_path: Path) -> None:
    """Before anything is read."""
    given = [*command, str(tmp_path / "a" / "items"), str(tmp_path / "b" / "items"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("I/O error: File too large (os error 27)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 2\nmore"),
        ExceptionGroup("several", [ValueError("x"), sqlite3.OperationalError("disk I/O error")]),
    ],
)
def test_a_full_disk_is_told_in_a_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library that writes makes of it."""

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("training.cli.experiment._show_list", full)
    result = CliRunner().invoke(app, ["experiment", "--list"])
    assert result.exit_code == 2
    assert "see whether the disk is full" in result.output
    assert len(result.output.splitlines()) == 1


def test_what_was_not_foreseen_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken() -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("training.cli.experiment._show_list", mistaken)
    assert isinstance(CliRunner().invoke(app, ["experiment", "--list"]).exception, RuntimeError)


def test_a_cross_domain_table_asks_about_another_dataset(tmp_path: Path) -> None:
    shop = write_shop(tmp_path)
    given = ["experiment", "table7", str(shop), "--target", f"{shop}/../{shop.name}", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert "--target is the same one" in result.output
