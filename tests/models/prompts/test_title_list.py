"""Lists of titles: what they show, where they end, and what follows."""

from __future__ import annotations

import pytest

from models.domain import DOMAINS
from models.errors import PromptTooLongError
from models.prompts.title_list import TitleList, TitleListConfig
from models.prompts.titles import encode_plain
from tests.tiny import tiny_llm

TOKENIZER = tiny_llm().tokenizer


def titles_of(*names: str) -> list[list[int]]:
    return encode_plain(TOKENIZER, names)


def make(context: int = 1024, **sizes: int) -> TitleList:
    return TitleList(TOKENIZER, TitleListConfig(**sizes), DOMAINS["movie"], context)


def text(token_ids) -> str:
    return TOKENIZER.decode(list(token_ids))


def test_a_list_is_written_as_people_write_them():
    """The domain's wording, the oldest first, an open quote at the end; with what begins a text."""
    prompt = make().after(titles_of("Alien", "Brazil"))
    assert prompt[0] == TOKENIZER.bos_token_id
    assert text(prompt[1:]) == 'A list of titles that the same person watched: "Alien", "Brazil", "'


def test_nobody_s_list_and_anybody_s():
    """Without a history it is open at once; alone it says nothing of a person."""
    assert text(make().after([])[1:]) == 'A list of titles that the same person watched: "'
    assert text(make().alone[1:]) == 'Here is a list of titles: "'


def test_only_the_latest_are_shown():
    prompt = make(history_items=2).after(titles_of("Alien", "Brazil", "Casablanca"))
    assert text(prompt[1:]).endswith('watched: "Brazil", "Casablanca", "')


@pytest.mark.parametrize(
    "sizes", [{}, {"history_items": 2}, {"history_title_tokens": 1}, {"context": 62, "max_title_tokens": 4}]
)
def test_a_list_ends_where_the_shorter_list_does(sizes: dict[str, int]):
    """Behind each title that is shown stands just what the list of the titles up to it would be."""
    history = titles_of("Alien", "Brazil", "Casablanca")
    titles = make(**sizes)
    prompt, ends = titles.after(history), titles.ends(history)
    assert 0 < len(ends) <= min(3, titles.config.history_items)
    shown = history[len(history) - len(ends) :]
    for count, end in enumerate(ends, 1):
        assert prompt[: end + 1].tolist() == titles.after(shown[:count]).tolist()
    assert ends[-1] == len(prompt) - 1
    assert len(titles.ends([])) == 0


def test_titles_of_the_list_have_a_length_of_their_own():
    """Those that follow may be cut where those before are whole."""
    history = titles_of("Casablanca")
    whole, cut = make(max_title_tokens=1), make(history_title_tokens=1)
    assert text(whole.after(history)[1:]).endswith('watched: "Casablanca", "')
    assert cut.after(history).tolist() == whole.after([history[0][:1]]).tolist()
    assert cut.config.tokens_needed == 33


def test_what_follows_is_closed_unless_it_is_cut():
    """A cut title is nowhere at its end, so nothing closes it."""
    title = titles_of("Brazil")[0]
    titles = make(max_title_tokens=len(title))
    closed = titles.continuation(title)
    assert closed[:-1] == title
    assert text(closed).startswith('Brazil"')
    assert titles.continuation([*title, 7]) == title


def test_the_oldest_are_left_out_where_the_context_ends():
    """The list and the longest title after it stay within the context; not even that: refused."""
    history = titles_of(*["Casablanca"] * 8)
    whole = make(max_title_tokens=20)
    needed = len(whole.after(history)) + 21
    assert len(make(needed, max_title_tokens=20).after(history)) == needed - 21
    shorter = make(needed - 1, max_title_tokens=20).after(history)
    assert shorter.tolist() == whole.after(history[1:]).tolist()
    with pytest.raises(PromptTooLongError, match="context of 25"):
        make(25, max_title_tokens=20).after([])
