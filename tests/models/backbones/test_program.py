"""Programs of other libraries: TorchScript and ONNX say the same, and what is neither is refused."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from models.backbones.program import load_program
from models.errors import ConfigError

CPU = torch.device("cpu")
VECTORS = torch.arange(24.0).reshape(2, 3, 4)
REAL = torch.tensor([[False, True, True], [True, True, True]])


class Sums(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return (vectors * real[:, :, None]).sum(1)


def onnx_sums(mask: int = TensorProto.BOOL, outputs: Sequence[str] = ("user",), size: int = 4) -> onnx.ModelProto:
    """Sums of what is real, in float32, by a mask of a type."""
    nodes = [
        helper.make_node("Cast", ["real"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["columns"]),
        helper.make_node("Mul", ["vectors", "columns"], ["weighed"]),
        *(helper.make_node("ReduceSum", ["weighed", "time"], [name], keepdims=0) for name in outputs),
    ]
    graph = helper.make_graph(
        nodes,
        "sums",
        [
            helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["users", "time", size]),
            helper.make_tensor_value_info("real", mask, ["users", "time"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["users", size]) for name in outputs],
        [
            helper.make_tensor("last", TensorProto.INT64, [1], [2]),
            helper.make_tensor("time", TensorProto.INT64, [1], [1]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("mask", [TensorProto.BOOL, TensorProto.FLOAT, TensorProto.INT64])
def test_onnx_says_what_torchscript_says(mask: int) -> None:
    """A library that has no masks of booleans has them of numbers."""
    stored = io.BytesIO()
    torch.jit.save(torch.jit.script(Sums()), stored)
    expected = load_program(stored.getvalue(), CPU)(VECTORS, REAL)
    said = load_program(onnx_sums(mask).SerializeToString(), CPU)(VECTORS, REAL)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said, expected)
    assert said.tolist() == [[12, 14, 16, 18], [48, 51, 54, 57]]


def test_each_output_is_told() -> None:
    """So that who asks can see that there is more than one."""
    said = load_program(onnx_sums(outputs=["user", "again"]).SerializeToString(), CPU)(VECTORS, REAL)
    assert isinstance(said, tuple)
    assert len(said) == 2


def test_what_is_no_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="protobuf parsing failed"):
        load_program(b"no program", CPU)
    with pytest.raises(RuntimeError, match=r"two inputs, vectors and which .* not \(real: tensor\(string"):
        load_program(one_input().SerializeToString(), CPU)
    weights = onnx_sums()
    weights.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "wide"))
    weights.graph.node.append(helper.make_node("MatMul", ["user", "wide"], ["wider"]))
    weights.graph.output[0].name = "wider"
    path = tmp_path / "apart.onnx"
    onnx.save(weights, path, save_as_external_data=True, location="apart.data", size_threshold=0)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would find them
    with pytest.raises(RuntimeError, match=r"in a second file: save all in one.*External data"):
        load_program(path.read_bytes(), CPU)


def one_input() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["real"], ["user"])],
        "same",
        [helper.make_tensor_value_info("real", TensorProto.STRING, ["users"])],
        [helper.make_tensor_value_info("user", TensorProto.STRING, ["users"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_other_histories_than_a_model_takes_are_told_of() -> None:
    """With all that ONNX Runtime says of it, in a line."""
    with pytest.raises(RuntimeError, match=r"vectors[^\n]* Got: 3 Expected: 4[^\n]*$"):
        load_program(onnx_sums().SerializeToString(), CPU)(VECTORS[..., :3], REAL)


def test_without_onnx_runtime_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        load_program(onnx_sums().SerializeToString(), CPU)
