"""TALLRec (Bao et al., RecSys 2023): the LLM itself is tuned, by LoRA, to say Yes or No to a history and a target item.

Ranked by how much likelier Yes is than No. All of a user's candidates share the prompt up to the target's title.

Axes: B prompts, L tokens, C candidates, E users, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch.nn import functional

from models.batching import consecutive
from models.catalogue import PADDING_ITEM, Catalogue
from models.errors import ConfigError
from models.llm.head import head_of
from models.llm.loading import LanguageModel
from models.prompts.template import PromptConfig
from models.prompts.titles import TitleTokens, encode_plain
from models.rankers.base import Audience, LocalRanker, Ranker
from training.baselines.bench import BaselineConfig, Bench
from training.baselines.port import Fitted, Shop, system
from training.runs.loop import LoopConfig, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun

ADAPTER_FILE = "adapter.safetensors"
PREFIXES_KEPT = 256
"""Candidates that are answered at a time."""


class TALLRecConfig(BaselineConfig):
    """TALLRec's reference sizes.

    Attributes:
        rank: of LoRA's matrices.
        alpha: LoRA's scale times its rank.
        dropout: of LoRA.
        modules: which linear layers have LoRA, by the ends of their names.
        negatives: No examples for every Yes.
        batch_tokens: tokens of a step, padding included.
        learning_rate: of AdamW.
    """

    rank: int = Field(8, gt=0)
    alpha: int = Field(16, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    modules: tuple[str, ...] = ("q_proj", "v_proj")
    negatives: int = Field(1, gt=0)
    batch_tokens: int = Field(3072, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    loop: LoopConfig = LoopConfig(epochs=5, minutes=10, warmup=0.02, decay_from=0.0, clip_norm=1.0)


class YesNoPrompts:
    """Prompts as token ids.

    Args:
        tokenizer: the LLM's.
        catalogue: whose titles.
        config: wording, and how much of a history is told.

    Attributes:
        yes, no: the tokens at which the two answers part.
    """

    def __init__(self, tokenizer: Any, catalogue: Catalogue, config: PromptConfig) -> None:
        domain = config.domain
        self._config, self._titles = config, TitleTokens(tokenizer, catalogue.titles, config.max_title_tokens)
        self._task, self._target, question, yes, no, self._open, self._close, self._comma = encode_plain(
            tokenizer,
            [
                f"This user has {domain.past}",
                f" in the previous. Will this user like to {domain.verb} the {domain.noun}",
                " next? Answer Yes or No:",
                " Yes",
                " No",
                ' "',
                '"',
                ",",
            ],
        )
        same = next((place for place, (y, n) in enumerate(zip(yes, no, strict=False)) if y != n), None)
        if same is None:
            raise ConfigError("the LLM's tokenizer does not tell ' Yes' from ' No'")
        self.yes, self.no = yes[same], no[same]
        self._question = [*question, *yes[:same]]
        self._start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]

    def history(self, items: np.ndarray) -> list[int]:
        """What all candidates of a user share."""
        tokens = [*self._start, *self._task]
        for place, item in enumerate(self._config.shown(items)):
            tokens += [*(self._comma if place else ()), *self._open, *self._titles[int(item)], *self._close]
        return tokens + self._target

    def target(self, item: int) -> list[int]:
        """What comes after it, to the answer."""
        return [*self._open, *self._titles[item], *self._close, *self._question]


def answer_loss(logits_B_V: torch.Tensor, liked_B: torch.Tensor, yes: int, no: int) -> torch.Tensor:
    """Cross-entropy of the answer's token over the whole vocabulary, as instruction tuning has it."""
    return functional.cross_entropy(logits_B_V.float(), torch.where(liked_B, yes, no))


class YesNoRanker(LocalRanker):
    """log P(Yes) - log P(No) of every candidate.

    Args:
        model: the tuned LLM.
        prompts: about the items.
    """

    id, title = "tallrec", "TALLRec"
    needs_llm = True

    def __init__(self, model: Any, prompts: YesNoPrompts) -> None:
        self._model, self._prompts = model, prompts

    @torch.no_grad()
    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        logits_E_C = np.full(candidates_E_C.shape, -np.inf)
        for row, (history, items) in enumerate(zip(users.histories, candidates_E_C, strict=True)):
            columns = np.flatnonzero(items != PADDING_ITEM)
            prefix = self._prompts.history(history)
            for start in range(0, len(columns), PREFIXES_KEPT):
                part = columns[start : start + PREFIXES_KEPT]
                logits_E_C[row, part] = self._answers(prefix, [self._prompts.target(int(item)) for item in items[part]])
        return logits_E_C

    def _answers(self, prefix: Sequence[int], targets: Sequence[Sequence[int]]) -> np.ndarray:
        """(C,) of targets after the same prefix, which is read once."""
        device = self._model.device
        read = self._model(input_ids=torch.tensor([list(prefix)], device=device), use_cache=True)
        cache = read.past_key_values
        cache.batch_repeat_interleave(len(targets))
        ids_C_L, mask_C_L = padded(targets, device)
        before = torch.ones(len(targets), len(prefix), dtype=torch.long, device=device)
        found = self._model(
            input_ids=ids_C_L,
            attention_mask=torch.cat([before, mask_C_L], dim=1),
            past_key_values=cache,
            use_cache=True,
        )
        last_C = mask_C_L.sum(dim=1) - 1
        logits_C_V = found.logits[torch.arange(len(targets), device=device), last_C].float()
        answers: np.ndarray = (logits_C_V[:, self._prompts.yes] - logits_C_V[:, self._prompts.no]).cpu().numpy()
        return answers


def padded(prompts: Sequence[Sequence[int]], device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, L) token ids and mask, padded on the right."""
    width = max(map(len, prompts))
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in prompts], device=device)
    mask = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in prompts], device=device)
    return ids, mask


@system("tallrec", "TALLRec", takes="interactions, titles, LLM with LoRA", tunes_llm=True)
def tallrec(bench: Bench) -> Fitted:
    """Other catalogues are known as well as its own: by their titles."""
    model = tuned_llm(bench).model

    def ranker(shop: Shop) -> Ranker:
        return YesNoRanker(model, YesNoPrompts(bench.llm.tokenizer, shop.catalogue, shop.prompt))

    return ranker


def tuned_llm(bench: Bench) -> LanguageModel:
    """The LLM with what LoRA learned, trained unless that was done."""
    config = bench.config("tallrec", TALLRecConfig)
    directory = bench.trained("tallrec", config, bench.llm.identity, lambda run: _train(bench, config, run))
    model = tuned(bench, config, directory).merge_and_unload().eval().requires_grad_(False)
    return replace(bench.llm, model=model)


def tuned(bench: Bench, config: TALLRecConfig, directory: Path | None = None) -> Any:
    """The LLM with LoRA: as trained in `directory`, else fresh, which changes nothing yet."""
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.modules),
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(copy.deepcopy(bench.llm.model), lora)
    if directory is not None:
        set_peft_model_state_dict(model, load_file(directory / ADAPTER_FILE))
    return model.eval()


def _train(bench: Bench, config: TALLRecConfig, run: StageRun) -> dict[str, Any]:
    seed_everything(config.seed)
    model, split = tuned(bench, config), bench.split
    base = model.get_base_model()
    prompts = YesNoPrompts(bench.llm.tokenizer, split.catalogue, bench.prompt)
    users = np.asarray([user for user, items in enumerate(split.train) if len(items) > 1])
    sampler = split.negative_sampler(trained_only=True)

    def batches(epoch: int) -> Sequence[list[tuple[list[int], bool]]]:
        rng = epoch_rng(config.seed, epoch)
        ends = np.asarray([len(split.train[user]) - 1 for user in users])
        targets = np.asarray([split.train[user][end] for user, end in zip(users, ends, strict=True)])
        items = np.column_stack([targets, sampler.sample(users, config.negatives, rng)])
        examples = [
            ([*prompts.history(split.train[user][:end]), *prompts.target(int(item))], place == 0)
            for user, end, row in zip(users, ends, items, strict=True)
            for place, item in enumerate(row)
            if item != PADDING_ITEM
        ]
        lengths = np.asarray([len(tokens) for tokens, _ in examples])
        order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)), kind="stable")
        parts = [
            [examples[row] for row in rows] for rows in consecutive(order, lengths, most_padded=config.batch_tokens)
        ]
        return [parts[index] for index in rng.permutation(len(parts))]

    def loss(batch: list[tuple[list[int], bool]]) -> torch.Tensor:
        ids_B_L, mask_B_L = padded([tokens for tokens, _ in batch], model.device)
        hidden = base.get_decoder()(input_ids=ids_B_L, attention_mask=mask_B_L).last_hidden_state
        rows, last_B = torch.arange(len(batch), device=model.device), mask_B_L.sum(dim=1) - 1
        liked_B = torch.tensor([liked for _, liked in batch], device=model.device)
        logits_B_V = head_of(base).all_logits(hidden[rows, last_B])
        return answer_loss(logits_B_V, liked_B, prompts.yes, prompts.no)

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=0.0)
    outcome = run.train(Task(model, optimizer, batches, loss), config.loop, "tallrec")
    weights = {name: tensor.cpu().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(weights, run.directory / ADAPTER_FILE)
    return outcome.summary
