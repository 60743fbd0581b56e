"""Where bfloat16 is fast: on GPUs since Ampere and on CPUs with AVX512-BF16 or AMX. Elsewhere it is emulated, tens of
times slower than float32.
"""

from __future__ import annotations

import torch

CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether `device` computes in bfloat16 itself."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(name, False) for name in CPU_FEATURES)
    return False


def training_dtype(name: str, device: torch.device | str) -> torch.dtype:
    """The dtype that `name` means on `device`; "auto" is bfloat16 where that is fast, else float32."""
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype
