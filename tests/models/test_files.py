"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.files import written_atomically


def test_a_file_takes_its_place_once_it_is_whole(tmp_path: Path) -> None:
    """Until then the old one stands."""
    path = tmp_path / "report.json"
    path.write_text("old")
    with written_atomically(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """Ctrl-C included."""
    path = tmp_path / "report.json"
    path.write_text("old")

    def interrupted() -> None:
        with written_atomically(path) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
