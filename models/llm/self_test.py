"""What every LLM is asked when it is loaded: a small tree, packed and plainly. Both must give the same."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch

from models.llm.families import UnsupportedLLMError
from models.llm.forward import decoder_states, embed_tokens
from models.llm.head import Head

PROMPT = 12
"""Tokens of the prompt."""
SIBLINGS = 24
"""Tokens that may follow it, so that the last stands far from where a plain sequence has it; one follows the first."""
WINDOWS = ("sliding_window", "attention_chunk_size")
"""What a config calls how far a local layer sees: nothing in a context is farther than that is long."""
MOST_KEPT = ("keep_window_size",)
"""What it calls how many tokens a layer looks at: of a tree there may be more than a context has places."""
NARROW = 5
"""A window that the prompt is longer than."""
TOLERANCE = 1e-3
HALF_TOLERANCE = 0.1
"""In half precision, whose rounding differs with the shapes of what is multiplied. A wrong mask may do less, so the
first layers are tried in full precision as well."""
FIRST_LAYERS = 2
STRIDE = 7919


def check_exact(name: str, model: Any) -> None:
    """Refuse an LLM whose packed answers are not its plain ones.

    Args:
        name: as the user named it.
        model: a causal LM in eval mode.

    Raises:
        UnsupportedLLMError: they differ, or it cannot be asked at all.
    """
    kind = f"LLM '{name}' ({model.config.get_text_config().model_type})"
    if model._is_stateful:
        raise UnsupportedLLMError(f"{kind} cannot be asked exactly: it is recurrent, and reads siblings as its past")
    tried = [model]
    if not _is_full(model):
        try:
            tried.append(_twin(model, _first_layers(model), torch.float32))
        except Exception:  # what is loaded in 8 bits, or is built in a way of its own, has its own precision alone
            tried = [model]
    for each in tried:
        try:
            error = max(packing_error(each), *map(partial(_error_beyond, each), _windows(each)), 0.0)
        except Exception as failure:
            said = f"{type(failure).__name__}: {failure}"
            raise UnsupportedLLMError(
                f"{kind} cannot be asked about a tree of tokens: its code does not take embeddings, positions and masks"
                f" as other decoders do ({said.splitlines()[0]})"
            ) from failure
        allowed = TOLERANCE if _is_full(each) else HALF_TOLERANCE
        if not error <= allowed:
            raise UnsupportedLLMError(
                f"{kind} cannot be asked exactly: packed and plain forward passes differ by {error:.2g} of the spread"
                f" of the logits, more than {allowed:g}{_suspects(each)}"
            )


def _is_full(model: Any) -> bool:
    return model.dtype in (torch.float32, torch.float64)


def _windows(model: Any) -> list[str]:
    """Settings that the first test is too short for, and that what the LLM is asked may be long enough for."""
    config = model.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None) or float("inf")
    longest = {**dict.fromkeys(WINDOWS, context), **dict.fromkeys(MOST_KEPT, float("inf"))}
    sizes = {name: getattr(config, name, None) for name in longest}
    return [name for name, size in sizes.items() if isinstance(size, int) and PROMPT < size < longest[name]]


def _first_layers(model: Any) -> dict[str, Any]:
    """Settings of a config with the fewest layers among which all kinds are."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or []
    layers = max([FIRST_LAYERS, *(1 + kinds.index(kind) for kind in set(kinds))])
    layers = min(layers, config.num_hidden_layers)
    return {"num_hidden_layers": layers, **({"layer_types": kinds[:layers]} if kinds else {})}


def _twin(model: Any, changes: dict[str, Any], dtype: torch.dtype | None = None) -> Any:
    """The same LLM with the same weights, built anew by a config with some changes.

    It shares its weights with the LLM unless they are to be of another type.
    """
    config = copy.deepcopy(model.config)
    for name, value in changes.items():
        setattr(config.get_text_config(), name, value)
    with torch.device("meta"):
        twin = type(model)(config)
    wanted = twin.state_dict()
    weights = {name: weight for name, weight in model.state_dict().items() if name in wanted}
    if dtype is not None:
        weights = {name: weight.to(dtype) if weight.is_floating_point() else weight for name, weight in weights.items()}
    twin.load_state_dict(weights, assign=True)
    twin.tie_weights()
    for name, buffer in model.named_buffers(remove_duplicate=False):
        owner, _, own = name.rpartition(".")
        if name not in wanted:
            try:
                twin.get_submodule(owner).register_buffer(own, buffer, persistent=False)
            except AttributeError:  # of a layer that the twin has not
                continue
    return twin.eval().requires_grad_(False)


def _suspects(model: Any) -> str:
    windows = _windows(model)
    return f"; its config has {' and '.join(windows)}, which its code may not heed" if windows else ""


def _error_beyond(model: Any, window: str) -> float:
    """`packing_error` of a prompt that is longer than a window.

    A narrower window, which is looked at in no time, does for all that follow their config.
    """
    try:
        error = packing_error(_twin(model, {window: NARROW}))
    except Exception:  # the whole length says whether that is due to a changed config
        error = float("inf")
    allowed = TOLERANCE if _is_full(model) else HALF_TOLERANCE
    return error if error <= allowed else packing_error(model, getattr(model.config.get_text_config(), window) + NARROW)


@torch.inference_mode()
def packing_error(model: Any, prompt: int = PROMPT) -> float:
    """The root mean square difference of packed and plain logits, as a share of the logits' standard deviation.

    Args:
        model: a causal LM in eval mode.
        prompt: tokens of the prompt.
    """
    table = model.get_input_embeddings().weight
    parents = (*range(-1, prompt), *[prompt - 1] * (SIBLINGS - 1), prompt)
    token_ids = torch.arange(len(parents), device=table.device) * STRIDE % len(table)
    visible = torch.eye(len(parents), dtype=torch.bool, device=table.device)
    depths = torch.zeros_like(token_ids)
    for place, parent in enumerate(parents):
        if parent >= 0:
            visible[place] |= visible[parent]
            depths[place] = depths[parent] + 1
    embeds = embed_tokens(model, token_ids)
    states = decoder_states(model, embeds[None], depths[None], visible[None])[0]
    ends = [len(parents) - 2, len(parents) - 1]
    packed = Head(model).all_logits(states[ends])
    paths = [embeds[visible[end]][None] for end in ends]
    plain = torch.cat([model(inputs_embeds=path, use_cache=False, logits_to_keep=1).logits[:, -1] for path in paths])
    return float((packed - plain.float()).square().mean().sqrt() / plain.float().std())
