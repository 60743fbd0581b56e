"""The LLM in training: which weights, which attention, and logits of the titles' tokens alone.

Axes: B rows, T tokens, M predicted tokens, H hidden size, V tokens of the vocabulary that titles use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional

from models.devices import steady_attention
from models.errors import ConfigError
from models.llm.loading import load_config, load_weights
from training.llm2rec.batches import Padded
from training.llm2rec.config import LoRAConfig

TOLERANCE = 1e-3
"""Between logits computed here and by the LLM itself."""
ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop")
"""What families call it."""
MOST_TOKENS_PROBED = 4


def load_model(llm: str, device: str, dropout: float = 0.0) -> Any:
    """A causal LM in fp32, to be trained.

    Args:
        llm: "embedded", a hub name or a path.
        device: where it runs.
        dropout: of attention.

    Raises:
        ConfigError: it cannot be loaded, or has no dropout of attention where one is asked for.
    """
    config = load_config(llm)
    names = [name for name in ATTENTION_DROPOUT if hasattr(config, name)]
    if dropout and not names:
        raise ConfigError(f"LLM '{llm}' ({config.model_type}) has no dropout of attention: set contrastive.dropout=0")
    for name in names:
        setattr(config, name, dropout)
    steady_attention(device)
    return load_weights(llm, config, dtype=torch.float32).to(device)


@torch.no_grad()
def see_both_ways(model: Any) -> None:
    """Let every token attend to those after it, by the config's own `is_causal`, which is saved with the weights.

    Raises:
        ConfigError: the LLM's family does not heed it.
    """
    model.config.is_causal = False
    was_training = model.training
    model.eval()
    ids = torch.arange(MOST_TOKENS_PROBED, device=model.device)[None]
    other = ids.clone()
    other[0, -1] += 1
    first, second = (model.base_model(input_ids=each).last_hidden_state[:, 0] for each in (ids, other))
    model.train(was_training)
    if torch.equal(first, second):
        raise ConfigError(
            f"the LLM's family '{model.config.model_type}' stays causal whatever its config says: IEM needs another LLM"
        )


class Trainable(nn.Module):
    """The trained weights of a model as a module of their own, which is all that a checkpoint holds.

    Args:
        model: whose weights with `requires_grad` these are; it follows into training and eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._whole = [model]
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", "/"), parameter)

    def train(self, mode: bool = True) -> Trainable:
        """Put the whole model into training or eval mode."""
        self._whole[0].train(mode)
        return super().train(mode)


class Tuning:
    """Training of an LLM: by low-rank updates, or of all weights.

    Args:
        model: a causal LM, changed in place.
        lora: of the updates; all weights are trained without it.

    Attributes:
        model: the causal LM, with updates in its layers.
        weights: what is trained.

    Raises:
        ConfigError: the LLM's layers cannot have such updates.
    """

    def __init__(self, model: Any, lora: LoRAConfig | None) -> None:
        self.model = model
        if lora is None:
            self._peft, trained = None, model.requires_grad_(True)
        else:
            config = LoraConfig(
                r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear"
            )
            try:
                self._peft = trained = get_peft_model(model, config)
                trained(input_ids=torch.arange(MOST_TOKENS_PROBED, device=model.device)[None])
            except Exception as error:  # peft has errors of many kinds for layers that it cannot update
                raise ConfigError(
                    f"an LLM of the family '{model.config.model_type}' cannot be trained by low-rank updates of all its"
                    f" layers{_way_out(lora)}: {error}"
                ) from error
        self.weights = Trainable(trained)

    def merge(self) -> Any:
        """The causal LM as it is without this class: updates are added to its weights."""
        return self.model if self._peft is None else self._peft.merge_and_unload()


def _way_out(lora: LoRAConfig) -> str:
    # Experts that are one table have no place for dropout.
    return f" with dropout {lora.dropout:g} (set lora.dropout=0, or train all weights)" if lora.dropout else ""


class TitleHead:
    """Logits of the tokens that titles use, from hidden states: of most LLMs' vocabulary that is a small part.

    Args:
        model: a causal LM.
        vocabulary: (V,) those tokens, ascending.

    Raises:
        ConfigError: the LLM makes logits in a way of its own.
    """

    def __init__(self, model: Any, vocabulary: np.ndarray) -> None:
        self._model = model
        self._tokens_V = torch.from_numpy(vocabulary).to(model.device)
        self._cap = getattr(model.config, "final_logit_softcapping", None)
        self._check()

    def logits(self, hidden_M_H: torch.Tensor) -> torch.Tensor:
        """(M, V)."""
        head = self._model.get_output_embeddings()
        bias = None if head.bias is None else head.bias[self._tokens_V]
        logits_M_V = functional.linear(hidden_M_H, head.weight[self._tokens_V], bias)
        return logits_M_V if self._cap is None else self._cap * torch.tanh(logits_M_V / self._cap)

    def losses(self, hidden_M_H: torch.Tensor, tokens_M: torch.Tensor) -> torch.Tensor:
        """(M,) -log P of tokens among the vocabulary."""
        places_M = torch.searchsorted(self._tokens_V, tokens_M)
        return functional.cross_entropy(self.logits(hidden_M_H).float(), places_M, reduction="none")

    @torch.no_grad()
    def _check(self) -> None:
        was_training = self._model.training
        self._model.eval()
        ids = self._tokens_V[None, :MOST_TOKENS_PROBED]
        wanted = self._model(input_ids=ids).logits[0][:, self._tokens_V]
        found = self.logits(self._model.base_model(input_ids=ids).last_hidden_state[0])
        self._model.train(was_training)
        if not torch.allclose(wanted, found, atol=TOLERANCE, rtol=TOLERANCE):
            raise ConfigError(
                f"the LLM's family '{self._model.config.model_type}' makes logits in a way of its own, which llm2rec"
                " does not know: choose another LLM"
            )


def hidden_states(model: Any, batch: Padded) -> torch.Tensor:
    """(B, T, H) of the last layer."""
    return model.base_model(input_ids=batch.ids, attention_mask=batch.real, use_cache=False).last_hidden_state


def next_token_losses(model: Any, head: TitleHead, inputs: Padded, wanted: Padded) -> torch.Tensor:
    """(M,) -log P of the wanted tokens, each read off the position before it.

    Args:
        model: a causal LM, seeing one way or both.
        head: makes logits.
        inputs: what the LLM reads.
        wanted: `ids` are the true tokens (B, T), `real` is 1 where one is wanted; the first never is.
    """
    chosen_B_T = wanted.real[:, 1:].bool()
    hidden_M_H = hidden_states(model, inputs)[:, :-1][chosen_B_T]
    return head.losses(hidden_M_H, wanted.ids[:, 1:][chosen_B_T])


def mean_pooled(hidden_B_T_H: torch.Tensor, real_B_T: torch.Tensor) -> torch.Tensor:
    """(B, H) mean over real tokens, the start token among them."""
    weights_B_T_1 = real_B_T[..., None].to(hidden_B_T_H.dtype)
    return (hidden_B_T_H * weights_B_T_1).sum(dim=1) / weights_B_T_1.sum(dim=1)
