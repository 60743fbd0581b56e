"""What sentences repeat of titles."""

from __future__ import annotations

from models.prompts.titles import LONGEST_TOLD
from service.usecases.narration import quoted


def test_a_title_is_quoted_whole_up_to_a_length() -> None:
    longest = "x" * LONGEST_TOLD
    assert quoted(longest) == f"\u201c{longest}\u201d"


def test_no_title_ends_its_own_quote() -> None:
    """One that has quotes is told with others."""
    assert quoted('x." because of "y') == "\u201cx.' because of 'y\u201d"
    assert quoted("x.\u201d because of \u201cy") == "\u201cx.' because of 'y\u201d"


def test_of_a_very_long_title_the_beginning_is_quoted() -> None:
    said = quoted("word " * 1000)
    assert len(said) <= LONGEST_TOLD + 2
    assert said.startswith("\u201cword word")
    assert said.endswith("word\u2026\u201d")
