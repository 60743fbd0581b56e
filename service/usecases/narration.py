"""The sentence of an explanation: the LLM's where it holds, else the bare facts."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from models.domain import Domain
from models.prompts.titles import as_told
from models.writing import END, QUOTE
from service.llm_gate import FallbackError
from service.outcome import SentenceSource

OTHER_QUOTES = re.compile(
    "[\u201c-\u201f\u2018\u201a\u201b\u00ab\u00bb\u2039\u203a\u300a-\u300f\u301d-\u301f\u2032-\u2037\u275b-\u2760\u2e42"
    "\uff02\uff07\uff3f\uff40\uff62\uff63\u00b4`*_]|(?:^|[\\s(])'\\w"
)
"""What opens or closes a title in any other way; an apostrophe within a word does not."""
NO_GAP = (" ", ",", ".", ";", ":", ")", "\n")


class Narration:
    """A sentence on its way.

    Attributes:
        text: the sentence; complete once `pieces` has ended. It differs from the pieces joined if what the LLM wrote
            turned out not to hold.
        source: who wrote it.
    """

    def __init__(self, opening: str, facts: str, written: AsyncGenerator[str, None] | None) -> None:
        self.text = ""
        self.source: SentenceSource = "template"
        self._opening = opening
        self._facts = facts
        self._written = written

    async def pieces(self) -> AsyncGenerator[str, None]:
        """The sentence bit by bit."""
        if self._written is not None:
            try:
                async with aclosing(self._written) as written:
                    async for piece in written:
                        bit = piece if self.text else f"{self._opening}{'' if piece.startswith(NO_GAP) else ' '}{piece}"
                        self.text += bit
                        yield bit
                        if loops(self.text):
                            self.text = ""
                            break
            except FallbackError:
                self.text = ""
            if is_grounded(self.text.removeprefix(self._opening)):
                self.source = "llm"
                return
        self.text = self._facts
        yield self._facts

    async def whole(self) -> str:
        """The sentence once it is complete."""
        async for _ in self.pieces():
            pass
        return self.text


@dataclass(frozen=True)
class Facts:
    """What there is to say of one alternative.

    Attributes:
        statement: that it is so, without a reason and without an end.
        bare: the whole sentence where nothing in the history is a reason.
        cited: titles of the items that are reasons, oldest first.
        domain: how the catalogue is spoken of.
    """

    statement: str
    bare: str
    cited: Sequence[str]
    domain: Domain

    @property
    def opening(self) -> str:
        """What an LLM goes on from."""
        return f"{self.statement}, because this user has {self.domain.past}"

    @property
    def text(self) -> str:
        """The whole sentence, without an LLM; it names equal titles once."""
        titles = dict.fromkeys(quoted(title) for title in self.cited)
        return f"{self.opening} {_enumerate([*titles])}." if titles else self.bare


def genre_facts(genre: str, domain: Domain, cited: Sequence[str], has_items: bool, tried: int) -> Facts:
    """Of the favourite genre of somebody with a history.

    Args:
        genre: its name.
        domain: how the catalogue is spoken of.
        cited: titles of the items that are reasons, oldest first.
        has_items: whether the history has any item of it.
        tried: how many items of the history were tried.
    """
    statement = f"The favorite {domain.noun} genre of this user is {genre}"
    if not has_items:
        bare = f"{statement}, though nothing that this user has {domain.past} has this genre."
    elif not tried:
        bare = f"{statement}; what speaks for it was not tried out."
    else:
        bare = f"{statement}, though of {tried} items of the history that were tried none makes it likelier."
    return Facts(statement, bare, cited, domain)


def item_facts(title: str, domain: Domain, cited: Sequence[str], tried: int) -> Facts:
    """Of an item for somebody with a history; arguments as in `genre_facts`.

    However unlikely an item is, what is said of it holds: it compares, as its reasons do.
    """
    statement = f"{quoted(title)} is likelier for this user"
    if tried:
        bare = f"Of {tried} items of the history that were tried none makes {quoted(title)} likelier for this user."
    else:
        bare = f"What speaks for {quoted(title)} was not tried out."
    return Facts(statement, bare, cited, domain)


def quoted(title: str) -> str:
    """A title as sentences have it that no LLM wrote; no title ends its own quote."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{as_told(title)}\N{RIGHT DOUBLE QUOTATION MARK}"


def is_grounded(written: str) -> bool:
    """Whether what an LLM wrote comes to an end and quotes something: `models.writing` limits what it can quote, but
    by that kind of quotes alone, so there may be no others in what it words freely.
    """
    free = "".join(written.split(QUOTE)[::2])
    return written.endswith(END) and QUOTE in written and OTHER_QUOTES.search(free) is None


def loops(text: str) -> bool:
    """Whether a text ends in the same words, one to four, three times in a row: small LLMs get stuck so."""
    words = text.split()
    return any(
        len(words) >= 3 * size and words[-size:] == words[-2 * size : -size] == words[-3 * size : -2 * size]
        for size in range(1, 5)
    )


def _enumerate(words: list[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])
