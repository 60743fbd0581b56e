"""Ranking evaluation candidates with the LLM: what stage 2 validates with and the evaluation reports.

Axes: E users, C candidates of which the first is the positive, D CF size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from models.composer import PromptComposer, Question
from models.llm.loading import LanguageModel
from models.prompts.layout import Injection
from models.scoring.score import score_prompts
from training.evaluation.candidates import Candidates

QUESTIONS_HELD = 512
"""As many are built at a time: with OPT-6.7B one carries half a megabyte of soft tokens."""


@torch.inference_mode()
def rank_with_llm(
    llm: LanguageModel,
    composer: PromptComposer,
    users_E_D: torch.Tensor,
    histories: Sequence[np.ndarray],
    candidates: Candidates,
    *,
    injection: Injection = Injection.ALL,
    text_only: bool = False,
    batch_tokens: int = 8192,
    seed: int = 0,
    report: Callable[[int], None] | None = None,
) -> np.ndarray:
    """(E, C) log-probabilities of the candidates, -inf at padding.

    Every prompt lists its candidates in a random order of its own, the same for every variant of one seed.

    Args:
        llm: scores the prompts.
        composer: builds them.
        users_E_D: x_u.
        histories: E arrays of item numbers, oldest first.
        candidates: of E users.
        injection: the method, or an ablation of it.
        text_only: inject q_i for every item.
        batch_tokens: prompt tokens, padding included, of one forward pass.
        seed: of the candidates' order.
        report: called with the number of users done since the last call.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(np.flatnonzero(row)) for row in candidates.mask]
    questions = (
        composer.recommend(user, history.tolist(), items[order].tolist(), injection=injection, text_only=text_only)
        for user, history, items, order in zip(users_E_D, histories, candidates.items, orders, strict=True)
    )
    scores_E_C = np.full(candidates.items.shape, -np.inf)
    for row, log_probs in enumerate(answer(llm, questions, batch_tokens, report)):
        scores_E_C[row, orders[row]] = log_probs
    return scores_E_C


@torch.inference_mode()
def answer(
    llm: LanguageModel,
    questions: Iterable[Question],
    batch_tokens: int = 8192,
    report: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """Per question (K,) the log-probabilities of its choices.

    Args:
        llm: scores the prompts.
        questions: in any order; of those next to each other the ones of like length share a batch.
        batch_tokens: prompt tokens, padding included, of one forward pass.
        report: called with the number of questions answered since the last call.
    """
    answers: list[np.ndarray] = []
    remaining = iter(questions)
    while held := list(islice(remaining, QUESTIONS_HELD)):
        found: list[np.ndarray] = [np.empty(0)] * len(held)
        for rows in _batches([len(question.prompt.token_ids) for question in held], batch_tokens):
            batch = [held[row] for row in rows]
            nodes = score_prompts(llm, [q.prompt for q in batch], [q.trie for q in batch])
            for row, question, logits in zip(rows, batch, nodes, strict=True):
                found[row] = question.trie.log_probs(logits, question.cf_scores)
            if report is not None:
                report(len(rows))
        answers += found
    return answers


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of like length, longest first, so that a budget that is too large shows at once."""
    rows: list[int] = []
    for row in np.argsort([-length for length in lengths], kind="stable").tolist():
        if rows and lengths[rows[0]] * (len(rows) + 1) > batch_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
