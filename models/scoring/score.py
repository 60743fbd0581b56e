"""Exact scoring of several prompts in one forward pass of a transformers model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.llm.loading import LanguageModel
from models.prompts.layout import Prompt
from models.scoring.choices import Branching
from models.scoring.likelihood import score_continuations
from models.scoring.opt_inference import OPTScorer
from models.scoring.packing import (
    child_logits,
    children_of,
    hidden_states,
    node_logits,
    pack,
    soft_tokens_of,
    split_nodes,
)


@torch.inference_mode()
def score_prompts(llm: LanguageModel, prompts: Sequence[Prompt], tries: Sequence[Branching]) -> list[list[np.ndarray]]:
    """For each of B prompts the (C,) logits of every branch's children, as `ChoiceTrie.log_probs` takes them.

    Log-probabilities, as `ContinuationTree.log_probs` takes them, where one of `tries` asks for these.
    """
    if any(trie.normalised for trie in tries):
        return score_continuations(llm, prompts, tries)
    if not any(trie.branches for trie in tries):
        return [[] for _ in tries]
    if OPTScorer.supports(llm.model):
        hidden_M_H = OPTScorer(llm.model).node_states(prompts, tries)
        return split_nodes(node_logits(llm.model, hidden_M_H, children_of(tries).to(llm.model.device)), tries)
    return score_packed(llm, prompts, tries)


@torch.inference_mode()
def score_packed(llm: LanguageModel, prompts: Sequence[Prompt], tries: Sequence[Branching]) -> list[list[np.ndarray]]:
    """As `score_prompts`, for an LLM of any architecture."""
    device = llm.model.device
    batch = pack([prompt.token_ids for prompt in prompts], [prompt.soft_positions for prompt in prompts], tries)
    batch = batch.to(device)
    soft_tokens_S_H = soft_tokens_of(prompts, llm.token_size, device)
    return split_nodes(child_logits(llm.model, batch, hidden_states(llm.model, batch, soft_tokens_S_H)), tries)
