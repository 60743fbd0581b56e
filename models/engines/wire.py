"""What a service and the process that hosts its engine tell each other: a length, then a pickle.

Both ends are this code, on one machine, joined by a socket that nobody else has.
"""

from __future__ import annotations

import io
import pickle
import struct
from asyncio import StreamReader
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from models.config import Config
from models.engines.base import LLMEngine
from models.errors import AllmrecError, EngineError
from models.prompts.layout import Prompt
from models.scoring.choices import Branch, Branching

_LENGTH = struct.Struct("!Q")


def nothing() -> None:
    """What a process needs first, by default."""


def no_metrics() -> bytes:
    """What a process measures, by default."""
    return b""


class Plan(NamedTuple):
    """Which engine to host, by its class and config.

    `prepare` is called before, for what a process needs, and `measure` when somebody asks what its engine measures.
    When nobody asks any more it may take `end_seconds` to end.
    """

    kind: Callable[[Config], LLMEngine]
    config: Config
    end_seconds: float
    prepare: Callable[[], None] = nothing
    measure: Callable[[], bytes] = no_metrics


class Score(NamedTuple):
    """See `LLMEngine.score`."""

    number: int
    prompt: Prompt
    trie: Branching
    due: float | None


class Encode(NamedTuple):
    """See `LLMEngine.encode`."""

    number: int
    prompt: Prompt
    places: np.ndarray
    due: float | None


class Generate(NamedTuple):
    """See `LLMEngine.generate`."""

    number: int
    prompt: Prompt
    max_tokens: int
    stop: tuple[str, ...]


class Measure(NamedTuple):
    """See `Plan`."""

    number: int


Question = Score | Encode | Generate | Measure


class Cancel(NamedTuple):
    """Nobody waits for that answer any more."""

    number: int


class Started(NamedTuple):
    """The engine serves an LLM of this fingerprint."""

    fingerprint: str


class Refused(NamedTuple):
    """The engine does not start."""

    error: AllmrecError


class Alive(NamedTuple):
    """Told again and again, and at once when the engine's health changes."""

    healthy: bool


class Answer(NamedTuple):
    """Of a score, an encoding or a measurement; of a text that it is at its end."""

    number: int
    value: Any


class Piece(NamedTuple):
    """Of a text that is being written."""

    number: int
    text: str


class Failed(NamedTuple):
    """No answer."""

    number: int
    error: AllmrecError


class Batch(NamedTuple):
    """How many requests one has."""

    requests: int


@dataclass
class Asked:
    """What an engine reads of a trie that asks for logits."""

    branches: list[Branch]
    vocabulary: np.ndarray | None = None
    normalised: ClassVar[bool] = False


class AskedNormalised(Asked):
    """What an engine reads of a tree that asks for log-probabilities."""

    normalised: ClassVar[bool] = True


def asked(trie: Branching) -> Branching:
    """What an engine reads of it: the rest stays with who asks."""
    return (AskedNormalised if trie.normalised else Asked)(trie.branches, trie.vocabulary)


def packed(message: object) -> bytes:
    """A message as it is sent.

    Raises:
        EngineError: something in it cannot be.
    """
    try:
        return _packed(message)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise EngineError(f"{type(message).__name__} cannot be sent to another process: {error}") from error


def _packed(message: object) -> bytes:
    stream = io.BytesIO()
    stream.write(bytes(_LENGTH.size))
    _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(message)
    content = stream.getbuffer()
    _LENGTH.pack_into(content, 0, len(content) - _LENGTH.size)
    return content.tobytes()


async def received(reader: StreamReader) -> Any:
    """The next message.

    Raises:
        EOFError: there will be none.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        content = await reader.readexactly(length)
    except (EOFError, OSError) as error:  # IncompleteReadError is an EOFError
        raise EOFError("the other side is gone") from error
    return pickle.loads(content)  # noqa: S301 - see the module


def portable(error: Exception) -> AllmrecError:
    """The error, or one of the same words, if that cannot be sent."""
    if isinstance(error, AllmrecError):
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301
        except Exception:
            return EngineError(str(error))
        return error
    return EngineError(f"{type(error).__name__}: {error}")


class _Pickler(pickle.Pickler):
    """Tensors go as arrays: torch's own way takes several times as long for small ones."""

    def reducer_override(self, value: object) -> Any:
        if type(value) is torch.Tensor and value.dtype == torch.float32:
            return torch.from_numpy, (np.ascontiguousarray(value.detach().cpu().numpy()),)
        return NotImplemented
