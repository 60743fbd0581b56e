"""What sentences repeat of titles."""

from __future__ import annotations

from service.usecases.narration import LONGEST_QUOTE, quoted


def test_a_title_is_quoted_whole_up_to_a_length() -> None:
    longest = "x" * LONGEST_QUOTE
    assert quoted(longest) == f"\u201c{longest}\u201d"


def test_of_a_very_long_title_the_beginning_is_quoted() -> None:
    said = quoted("word " * 1000)
    assert len(said) <= LONGEST_QUOTE + 2
    assert said.startswith("\u201cword word")
    assert said.endswith("word\u2026\u201d")
