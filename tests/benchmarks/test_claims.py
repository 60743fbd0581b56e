"""Claims of explanations, checked as `make bench` checks them: by another service that explains nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.claims import _claimed, measure
from tests.service.world import make_world


def test_claims_hold_and_effects_are_what_another_service_finds(tmp_path: Path) -> None:
    """An LLM that computes, of genres and of items; what is measured on real bundles is measured here."""
    world = make_world(tmp_path)
    settings = world.settings_for(tmp_path, window=8, explain_timeout_ms=60_000)
    genres, items = measure(settings, ["u0", "u3", "u7"])
    for row in (genres, items):
        assert (row["users"], row["ranked by the LLM"]) == (3, 3)
        assert row["claims"] > 0
        assert row["claims that hold"] == row["claims"]
        assert row["share"] == 1.0
        assert row["off, at most"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("sentence", ["because of “A” and “B b”.", 'this user has watched "A" and "B b".'])
def test_what_a_sentence_names_is_found_in_either_kind_of_quotes(sentence: str) -> None:
    evidence = [{"title": title} for title in ("A", "B  b", "C", "because")]
    assert [item["title"] for item in _claimed(sentence, evidence)] == ["A", "B  b"]
