"""Tensors in files that can be made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.runs.kept import kept_tensor


@pytest.mark.parametrize("damage", ["cut", "empty", "other name"])
def test_what_is_kept_is_not_made_again_unless_it_is_damaged(tmp_path: Path, damage: str) -> None:
    made = list[torch.Tensor]()

    def make() -> torch.Tensor:
        made.append(torch.full((3, 2), float(len(made))))
        return made[-1]

    path = tmp_path / "below" / "kept.safetensors"
    for _ in range(3):
        assert torch.equal(kept_tensor(path, "x", make), torch.zeros(3, 2))
    assert len(made) == 1
    if damage == "other name":
        kept_tensor(path, "y", make)
    else:
        path.write_bytes(path.read_bytes()[: 30 if damage == "cut" else 0])
    expected = float(len(made))
    assert torch.equal(kept_tensor(path, "x", make), torch.full((3, 2), expected))
    assert torch.equal(kept_tensor(path, "x", make), torch.full((3, 2), expected))
