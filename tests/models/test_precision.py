"""Where bfloat16 is fast."""

from __future__ import annotations

import pytest
import torch

from models.precision import has_bfloat16, training_dtype


def test_processors_without_it_train_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is emulated, tens of times slower; a dtype that is asked for by name is what one gets."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert not has_bfloat16("cpu")
    assert training_dtype("auto", "cpu") is torch.float32
    assert training_dtype("bfloat16", "cpu") is torch.bfloat16


def test_processors_with_it_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By AVX512-BF16 or AMX."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert training_dtype("auto", "cpu") is torch.bfloat16
