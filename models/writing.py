"""Free text whose quotes are chosen, on any engine: an LLM may word things as it likes, but names nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from models.engines.base import LLMEngine
from models.prompts.layout import Prompt
from models.prompts.titles import encode_plain
from models.scoring.choices import ChoiceTrie

QUOTE = '"'
END = "."
OPENED = re.compile(rf"(?:^|[\s(\[:,;/\u2013\u2014-]){QUOTE}$")


@dataclass(frozen=True)
class Quotable:
    """What may be quoted.

    Attributes:
        tokens: as the LLM reads it.
        text: as people read it.
    """

    tokens: Sequence[int]
    text: str


@dataclass(frozen=True)
class Draft:
    """A text to be written.

    Attributes:
        prompt: what it continues.
        quotables: the only ones that it quotes, each at most once.
    """

    prompt: Prompt
    quotables: Sequence[Quotable]


async def write(engine: LLMEngine, draft: Draft, max_tokens: int) -> AsyncGenerator[str, None]:
    """One sentence, piece by piece: the LLM's greedy continuation, but for what it quotes.

    Once it opens a quote, it chooses among the `quotables` left, as it chooses candidates, and the likeliest is quoted.
    Where it opens one with none left, the sentence ends after the last; so what follows the last comes in one piece. A
    quote within a word is a sign that the LLM has lost the thread: the sentence stays without its end.

    Every quote asks the engine anew, once to choose and once to go on; without a prefix cache that is a prefill each.

    Args:
        engine: the LLM.
        draft: what to write.
        max_tokens: most tokens outside quotes. A sentence that needs more stays without its end.

    Raises:
        InvalidPromptError, OverloadedError, EngineError: see `LLMEngine`; pieces may have been given before.
    """
    prompt, left, text = draft.prompt, list(draft.quotables), ""
    while max_tokens > 0:
        written = ""
        async with aclosing(engine.generate(prompt, max_tokens, (END, QUOTE))) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                written += piece
                if left:
                    yield piece
        text += written
        opened = OPENED.search(text) is not None
        if not left and (rest := END if opened else written):
            yield rest
        if not left or not opened:
            return
        (token_ids,) = encode_plain(engine.tokenizer, [written])
        max_tokens -= len(token_ids)
        prompt = prompt.followed_by(token_ids)
        quoted = left.pop(await _likeliest(engine, prompt, left))
        yield (closed := quoted.text + QUOTE)
        text += closed
        prompt = prompt.followed_by([*quoted.tokens, *_close(engine)])


async def _likeliest(engine: LLMEngine, prompt: Prompt, quotables: Sequence[Quotable]) -> int:
    *closing, last = _close(engine)
    trie = ChoiceTrie([[*quotable.tokens, *closing] for quotable in quotables], last)
    return int(trie.log_probs(await engine.score(prompt, trie)).argmax())


def _close(engine: LLMEngine) -> list[int]:
    return encode_plain(engine.tokenizer, [QUOTE])[0]
