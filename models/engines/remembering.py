"""An engine that keeps what it was told, so that nothing is asked of an LLM twice, nor again after a stop."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np

from models.engines.base import LLMEngine
from models.prompts.layout import Prompt
from models.scoring.choices import Branching


class RememberingEngine:
    """`LLMEngine` that looks into a file first. What it neither scores nor encodes it leaves to the other.

    Args:
        engine: the other; started.
        answers: the file, open.
        precision: of the LLM, where it is not float32: answers of another are others.
    """

    def __init__(self, engine: LLMEngine, answers: sqlite3.Connection, precision: str = "") -> None:
        self._engine, self._answers = engine, answers
        self._asked = " ".join(filter(None, (engine.fingerprint, precision)))
        answers.execute("CREATE TABLE IF NOT EXISTS answers (question BLOB PRIMARY KEY, scores BLOB) WITHOUT ROWID")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def score(self, prompt: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:
        """See `LLMEngine.score`."""
        key = _question(self._asked, prompt, trie)
        known = self._known(key)
        if known is not None:
            return _by_branch(known, trie)
        scores = await self._engine.score(prompt, trie, due)
        self._keep(key, np.concatenate([np.zeros(0), *scores]))
        return scores

    async def encode(self, prompt: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:
        """See `LLMEngine.encode`."""
        digest = _digest_of(f"{self._asked} states", prompt)
        digest.update(places.astype(np.int64).tobytes())
        key = digest.digest()
        known = self._known(key)
        if known is not None:
            return known.reshape(len(places), -1)
        states_P_H = await self._engine.encode(prompt, places, due)
        self._keep(key, states_P_H)
        return states_P_H

    def _known(self, key: bytes) -> np.ndarray | None:
        """What was said before, flat."""
        row = self._answers.execute("SELECT scores FROM answers WHERE question = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0], dtype=np.float32)

    def _keep(self, key: bytes, said: np.ndarray) -> None:
        with self._answers:
            content = said.astype(np.float32).tobytes()
            self._answers.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, content))


@asynccontextmanager
async def remembering(engine: LLMEngine, path: Path | None, precision: str = "") -> AsyncIterator[LLMEngine]:
    """`engine`, of an LLM of that precision, with a memory in the file `path`; as it is without one."""
    if path is None:
        yield engine
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(_opened(path)) as answers:
        yield RememberingEngine(engine, answers, precision)


def _opened(path: Path) -> sqlite3.Connection:
    """A memory; where the file is none, or damaged, a new one in its place."""
    answers = sqlite3.connect(path)
    try:
        # A small LLM answers faster than a disk says that it wrote; what a lost machine forgets is asked again.
        answers.execute("PRAGMA journal_mode = WAL")
        answers.execute("PRAGMA synchronous = NORMAL")
        damage = answers.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
    except sqlite3.OperationalError:
        answers.close()
        raise
    except sqlite3.DatabaseError:
        damage = True
    if not damage:
        return answers
    answers.close()
    for each in (path, *path.parent.glob(f"{path.name}-*")):
        each.unlink()
    return _opened(path)


def _question(fingerprint: str, prompt: Prompt, trie: Branching) -> bytes:
    """A digest of all that an answer depends on."""
    among = np.zeros(0, dtype=np.int64) if trie.vocabulary is None else trie.vocabulary
    digest = _digest_of(f"{fingerprint} {trie.normalised}", prompt, among)
    for branch in trie.branches:
        digest.update(f"{branch.path} {branch.children.tolist()}".encode())
    return digest.digest()


def _digest_of(what: str, prompt: Prompt, *tables: np.ndarray) -> hashlib._Hash:
    """Of what is asked, by tables where there are some, of a prompt."""
    digest = hashlib.sha256(f"{what} {len(prompt.token_ids)}".encode())
    soft_S_H = prompt.soft_tokens.detach().float().cpu().numpy()
    ids = prompt.token_ids.astype(np.int64)
    ids[prompt.soft_positions] = 0  # what stands under a slot means nothing
    for values in (*tables, ids, prompt.soft_positions.astype(np.int64), soft_S_H):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest


def _by_branch(scores: np.ndarray, trie: Branching) -> list[np.ndarray]:
    ends = np.cumsum([len(branch.children) for branch in trie.branches])
    parts: Sequence[np.ndarray] = np.split(scores, ends[:-1]) if len(ends) else []
    return [np.asarray(part) for part in parts]
