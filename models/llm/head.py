"""From last hidden states to logits, on the way that the LLM's own forward takes.

Families scale their logits or cap them softly after the product with the output weights. Which do, and how, only their
own code knows; so that code is run, with the decoder and the output layer taken out, on the product of those tokens
that are asked for.

Axes: M places, C tokens asked for at each, V vocabulary, H the LLM's hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import MoeModelOutputWithPast


class Head:
    """The output layer of an LLM. It follows the weights of the model that it was made of.

    Args:
        model: a causal LM.
    """

    def __init__(self, model: Any) -> None:
        self._output = model.get_output_embeddings()
        replaced = {model.get_decoder(): _GivenStates(), self._output: nn.Identity()}
        self._after = _with_modules(model, replaced)
        self._plain = False
        with torch.no_grad():
            probe = torch.linspace(-100.0, 100.0, 101, device=self._output.weight.device)[None]
            self._plain = torch.equal(self._finished(probe), probe)

    def logits(self, hidden_M_H: torch.Tensor, tokens_M_C: torch.Tensor) -> torch.Tensor:
        """(M, C) the logits, in fp32, of tokens (M, C) at each of M places."""
        weight_M_C_H = self._output.weight[tokens_M_C]
        logits_M_C = torch.einsum("mh,mch->mc", hidden_M_H.float(), weight_M_C_H.float())
        if self._output.bias is not None:
            logits_M_C = logits_M_C + self._output.bias[tokens_M_C].float()
        return self._finished(logits_M_C)

    def all_logits(self, hidden_M_H: torch.Tensor) -> torch.Tensor:
        """(M, V) the logits, in fp32, of the whole vocabulary."""
        return self._finished(self._output(hidden_M_H.to(self._output.weight.dtype)).float())

    def logits_of(self, hidden_M_H: torch.Tensor, tokens_C: torch.Tensor) -> torch.Tensor:
        """(M, C) the logits, in fp32, of the same tokens (C,) at each of M places."""
        bias = self._output.bias
        products = functional.linear(
            hidden_M_H.to(self._output.weight.dtype),
            self._output.weight[tokens_C],
            None if bias is None else bias[tokens_C],
        )
        return self._finished(products.float())

    def _finished(self, products: torch.Tensor) -> torch.Tensor:
        """What the LLM makes of the products of hidden states and output weights."""
        if self._plain:
            return products
        return self._after(inputs_embeds=products[None], use_cache=False).logits[0].float()


_HEADS: WeakKeyDictionary[Any, Head] = WeakKeyDictionary()


def head_of(model: Any) -> Head:
    """The head of `model`, made once."""
    head = _HEADS.get(model)
    if head is None:
        head = _HEADS[model] = Head(model)
    return head


@dataclass
class _GivenOutput(MoeModelOutputWithPast):  # type: ignore[misc]
    """With all that any family's forward passes on."""

    cross_attentions: None = None


class _GivenStates(nn.Module):
    """A decoder whose last hidden states are its inputs."""

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> _GivenOutput:
        return _GivenOutput(last_hidden_state=inputs_embeds)


def _with_modules(module: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> Any:
    """A twin of `module` that shares all but the modules that are `replaced`."""
    if module in replaced:
        return replaced[module]
    children = dict(_changed_children(module, replaced))
    if not children:
        return module
    twin = copy.copy(module)
    twin._modules = {**module._modules, **children}
    return twin


def _changed_children(module: nn.Module, replaced: Mapping[nn.Module, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module._modules.items():
        if child is not None and (twin := _with_modules(child, replaced)) is not child:
            yield name, twin
