"""How much of what can be known the LM reads: its ranking against the true one, on freshly drawn preferences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from models.precision import has_bfloat16
from models.scoring.packing import child_logits, hidden_states, split_nodes
from training.pretraining.batch import TrainingBatch, bucketed, collate
from training.pretraining.example import Example

Measures = dict[str, float]
RESAMPLES = 2000
"""Of the bootstrap."""


@torch.no_grad()
def measure(model: Any, examples: Iterable[Example], tokens: int = 8192) -> dict[str, Measures]:
    """Compare the LM's constrained log-probabilities with the true ones.

    Returns:
        Per group (`all`, prompts by their number of branching nodes, those in which a series counts, nodes by how many
        tokens are shared before them, explanations, answers written out) the mean of:
        `accuracy`, the true probability of the LM's first choice; `bayes`, that of the best choice; `share`, their
        ratio, and the ends of its 95 % interval; `kl` from the truth to the LM in nats; `uniform_kl` from the truth to
        a uniform guess; `rank`, the Spearman correlation; and for text `token_accuracy` and `whole`,
        given the true words before each. Nodes count by the true probability to get there, over prompts that have such
        nodes, and a uniform guess there is one among a node's own children.
    """
    groups: dict[str, list[Measures]] = defaultdict(list)
    for examples_B in bucketed(list(examples), tokens):
        batch = collate(examples_B)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16("cpu")):
            hidden_B_L_H = hidden_states(model, batch.packed, batch.soft_tokens_S_H)
        logits = split_nodes(child_logits(model, batch.packed, hidden_B_L_H), [e.trie for e in examples_B])
        for example, nodes in zip(examples_B, logits, strict=True):
            for name, record in _ranking_measures(example, nodes).items():
                groups[name].append(record)
        for row, record in _text_accuracy(model, batch, hidden_B_L_H):
            groups[examples_B[row].text].append(record)
    return {
        name: {key: float(np.mean([record[key] for record in records])) for key in records[0]}
        | (_share(records) if "bayes" in records[0] else {})
        | {"prompts": len(records)}
        for name, records in sorted(groups.items())
        if records
    }


@torch.no_grad()
def measure_writing(model: Any, examples: Iterable[Example], end_token: int) -> Measures:
    """Let the LM answer in its own words, greedily, as A-LLMRec is evaluated in public.

    Args:
        model: the LM.
        examples: at least one, all with choices.
        end_token: the closing quote.

    Returns:
        `names_choice`: how often what it writes is one of the choices, with its closing quote; `names_first`: how often
        it is the one that it puts first where only choices are allowed.
    """
    records = []
    for example in examples:
        batch = collate([example])
        hidden_1_L_H = hidden_states(model, batch.packed, batch.soft_tokens_S_H)
        (nodes,) = split_nodes(child_logits(model, batch.packed, hidden_1_L_H), [example.trie])
        first = int(example.trie.log_probs(nodes).argmax())
        endings = [[*choice, end_token] for choice in example.layout.choices]
        prompt = example.layout.fill(example.soft_tokens)
        embeds_L_H = model.get_input_embeddings()(torch.from_numpy(prompt.token_ids))
        embeds_L_H[torch.from_numpy(prompt.soft_positions)] = prompt.soft_tokens.to(embeds_L_H)
        longest = max(map(len, endings))
        written = model.generate(inputs_embeds=embeds_L_H[None], do_sample=False, max_new_tokens=longest)[0].tolist()
        named = [written[: len(ending)] == ending for ending in endings]
        records.append({"names_choice": float(any(named)), "names_first": float(named[first])})
    return {key: float(np.mean([record[key] for record in records])) for key in records[0]}


def compare(true: np.ndarray, read: np.ndarray) -> Measures:
    """One prompt: true log-probabilities (n,) against those that the LM gives."""
    probs = np.exp(true)
    return {
        "accuracy": float(probs[read.argmax()]),
        "bayes": float(probs.max()),
        "kl": float(probs @ (true - read)),
        "uniform_kl": float(probs @ (true + np.log(len(true)))),
        "rank": float(np.corrcoef(_ranks(true), _ranks(read))[0, 1]),
    }


def _ranking_measures(example: Example, nodes: Sequence[np.ndarray]) -> dict[str, Measures]:
    """One prompt's measures, by the groups that it is of; none if it has nothing to rank."""
    if example.text:
        return {}
    record = compare(example.preferences.log_probs, example.trie.log_probs(nodes))
    count = len(example.trie.branches)
    branching = "1 branching node" if count == 1 else f"{min(count, 4)}{'+' * (count > 3)} branching nodes"
    groups = {"all": record, branching: record}
    series = example.preferences.series
    if 0 < series.sum() < len(series) and example.preferences.user[-1]:
        groups["a series counts"] = record
    return groups | _by_depth(example, nodes)


def _by_depth(example: Example, nodes: Sequence[np.ndarray]) -> dict[str, Measures]:
    """One prompt's divergences, by how many tokens lead to the node."""
    found: dict[str, Measures] = {}
    for branch, target_C, reach, logits_C in zip(example.trie.branches, *example.node_targets(), nodes, strict=True):
        shared = min(len(branch.path), 2)
        name = f"nodes after {shared}{'+' * (shared == 2)} shared tokens"
        measures = found.setdefault(name, {"kl": 0.0, "uniform_kl": 0.0})
        real = target_C > 0
        probs, read = target_C[real], logits_C[real] - np.logaddexp.reduce(logits_C)
        measures["kl"] += float(reach * (probs @ (np.log(probs) - read)))
        measures["uniform_kl"] += float(reach * (probs @ np.log(probs * len(target_C))))
    return found


def _share(records: list[Measures]) -> Measures:
    """The share of Bayes accuracy with its 95 % bootstrap interval."""
    values_B_2 = np.asarray([(record["accuracy"], record["bayes"]) for record in records])
    rng = np.random.default_rng(0)
    weights_R_B = rng.multinomial(len(records), np.full(len(records), 1 / len(records)), size=RESAMPLES)
    resampled_R_2 = weights_R_B @ values_B_2
    low, high = np.percentile(resampled_R_2[:, 0] / resampled_R_2[:, 1], [2.5, 97.5])
    accuracy, bayes = values_B_2.sum(axis=0)
    return {"share": float(accuracy / bayes), "share_low": float(low), "share_high": float(high)}


def _ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort()


def _text_accuracy(model: Any, batch: TrainingBatch, hidden_B_L_H: torch.Tensor) -> list[tuple[int, Measures]]:
    if not len(batch.text_rows_X):
        return []
    logits_X_V = model.lm_head(hidden_B_L_H[batch.text_rows_X, batch.text_columns_X].float())
    right_X = logits_X_V.argmax(dim=1) == batch.text_targets_X
    return [
        (
            row,
            {
                "token_accuracy": float(right_X[batch.text_rows_X == row].float().mean()),
                "whole": float(right_X[batch.text_rows_X == row].all()),
            },
        )
        for row in sorted(set(batch.text_rows_X.tolist()))
    ]
