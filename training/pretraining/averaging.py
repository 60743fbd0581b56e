"""The mean of two LLMs' weights."""

from __future__ import annotations

import copy
from typing import Any

from models.errors import ConfigError
from models.llm.loading import LanguageModel

_NOT_ARCHITECTURE = ("dtype", "_name_or_path", "transformers_version")
"""Of a transformers config: where and how it was saved, not what it is."""


def average(start: LanguageModel, goal: LanguageModel, share: float) -> Any:
    """The model whose weights lie `share` of the way from those of `start` to those of `goal`, in fp32.

    If `goal` was trained on from `start`, this keeps much of what either does better (WiSE-FT, Wortsman et al. 2022,
    section 3).

    Raises:
        ConfigError: they differ in architecture or tokenizer.
    """
    for what, ours, theirs in (
        ("architectures", _architecture(start), _architecture(goal)),
        ("tokenizers", start.tokenizer.backend_tokenizer.to_str(), goal.tokenizer.backend_tokenizer.to_str()),
    ):
        if ours != theirs:
            raise ConfigError(f"LLMs '{start.name}' and '{goal.name}' have different {what}: no mean makes sense")
    ours, theirs = start.model.state_dict(), goal.model.state_dict()
    model = copy.deepcopy(start.model).float()
    model.load_state_dict({name: (1 - share) * ours[name].float() + share * theirs[name].float() for name in ours})
    return model


def _architecture(llm: LanguageModel) -> dict[str, Any]:
    config: dict[str, Any] = llm.model.config.to_dict()
    return {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
