"""An engine with a memory: what was asked once is never asked again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.engines.remembering import remembering
from models.prompts.layout import Prompt
from models.scoring.choices import Branching, ChoiceTrie
from models.scoring.likelihood import ContinuationTree

PROMPT = Prompt(np.asarray([4, 5, 6]), np.asarray([1]), torch.ones(1, 2))
CHOICES = [[7, 8], [7, 9], [3]]


class Counting:
    """Says how many questions it was asked before."""

    fingerprint = "one"
    depth = 3

    def __init__(self) -> None:
        self.asked = 0

    async def score(self, _: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:  # noqa: ARG002
        self.asked += 1
        return [np.arange(len(branch.children)) + 10.0 * self.asked for branch in trie.branches]

    async def encode(self, _: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:  # noqa: ARG002
        self.asked += 1
        return np.full((len(places), 2), 10.0 * self.asked, dtype=np.float32)


def ask(engine: Any, path: Path | None, *questions: tuple[Prompt, Branching]) -> list[list[np.ndarray]]:
    async def all_of_them() -> list[list[np.ndarray]]:
        async with remembering(engine, path) as remembers:
            assert remembers.depth == 3
            return [await remembers.score(*question) for question in questions]

    return asyncio.run(all_of_them())


def test_the_same_question_gets_the_same_answer_after_a_stop(tmp_path: Path):
    """In the file's words, though another engine of the same LLM would say something else."""
    first = ask(Counting(), tmp_path / "run" / "answers", (PROMPT, ChoiceTrie(CHOICES, 0)))
    engine = Counting()
    engine.asked = 4
    again = ask(engine, tmp_path / "run" / "answers", (PROMPT, ChoiceTrie(CHOICES, 0)))
    assert engine.asked == 4
    assert [branch.tolist() for branch in again[0]] == [branch.tolist() for branch in first[0]]


@pytest.mark.parametrize("damage", ["noise", "cut", "scribbled"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str):
    """All in it can be asked again."""
    path, questions = tmp_path / "answers", [(PROMPT, ChoiceTrie([[7, 8], [number]], 0)) for number in range(9, 400)]
    ask(Counting(), path, *questions)
    content = path.read_bytes()
    assert len(content) > 3 * 4096
    damaged = {"noise": b"noise" * 1000, "cut": content[:5000], "scribbled": content[:4200] + b"x" * 8000}[damage]
    path.write_bytes(damaged)
    engine = Counting()
    ask(engine, path, *questions, *questions)
    assert engine.asked == len(questions)


OTHERS = {
    "other token": (Prompt(np.asarray([4, 5, 7]), PROMPT.soft_positions, PROMPT.soft_tokens), ChoiceTrie(CHOICES, 0)),
    "other soft token": (Prompt(PROMPT.token_ids, PROMPT.soft_positions, torch.zeros(1, 2)), ChoiceTrie(CHOICES, 0)),
    "other slot": (Prompt(PROMPT.token_ids, np.asarray([2]), PROMPT.soft_tokens), ChoiceTrie(CHOICES, 0)),
    "other choices": (PROMPT, ChoiceTrie(CHOICES[:2], 0)),
    "other kind": (PROMPT, ContinuationTree([[*choice, 0] for choice in CHOICES])),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_question_is_asked(tmp_path: Path, other: str):
    engine = Counting()
    ask(engine, tmp_path / "answers", (PROMPT, ChoiceTrie(CHOICES, 0)), OTHERS[other])
    assert engine.asked == 2


def test_states_are_kept_by_prompt_and_places(tmp_path: Path):
    """A list read before is not read again; at other places, or from another prompt, it is."""
    engine, shorter = Counting(), Prompt(np.asarray([4, 5]), PROMPT.soft_positions, PROMPT.soft_tokens)

    async def read() -> list[list[list[float]]]:
        async with remembering(engine, tmp_path / "answers") as remembers:
            asked = [(PROMPT, [1, 2]), (PROMPT, [2]), (shorter, [1]), (PROMPT, [1, 2])]
            return [(await remembers.encode(prompt, np.asarray(places))).tolist() for prompt, places in asked]

    first, second, third, again = asyncio.run(read())
    assert (first, second, third) == ([[10, 10], [10, 10]], [[20, 20]], [[30, 30]])
    assert again == first
    assert engine.asked == 3


def test_another_llm_is_asked_anew(tmp_path: Path):
    engine = Counting()
    ask(engine, tmp_path / "answers", (PROMPT, ChoiceTrie(CHOICES, 0)))
    engine.fingerprint = "two"
    ask(engine, tmp_path / "answers", (PROMPT, ChoiceTrie(CHOICES, 0)))
    assert engine.asked == 2


def test_what_stands_under_a_slot_is_no_part_of_the_question(tmp_path: Path):
    engine, relabelled = Counting(), Prompt(np.asarray([4, 99, 6]), PROMPT.soft_positions, PROMPT.soft_tokens)
    trie = ChoiceTrie(CHOICES, 0)
    ask(engine, tmp_path / "answers", (PROMPT, trie), (relabelled, trie))
    assert engine.asked == 1


def test_another_precision_is_asked_anew(tmp_path: Path):
    """Its answers are rounded otherwise."""

    async def ask_in(precision: str) -> int:
        engine: Any = Counting()
        async with remembering(engine, tmp_path / "answers", precision) as remembers:
            await remembers.score(PROMPT, ChoiceTrie(CHOICES, 0))
        return engine.asked

    asked = [asyncio.run(ask_in(precision)) for precision in ("", "bfloat16", "", "bfloat16", "8bit")]
    assert asked == [1, 1, 0, 0, 1]


def test_without_a_file_nothing_is_kept():
    engine, trie = Counting(), ChoiceTrie(CHOICES, 0)
    ask(engine, None, (PROMPT, trie), (PROMPT, trie))
    assert engine.asked == 2
