"""A program that reads histories, as other libraries save it: TorchScript, or ONNX.

Axes: B users, T time, D embedding size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from models.errors import ConfigError

ZIP = b"PK"
"""What TorchScript's archive begins with; ONNX is a message without a mark of its own."""
TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
"""That an ONNX model may take an input in."""


NOWHERE = str(Path(__file__).with_name("nowhere"))


class Program(Protocol):
    """(vectors (B, T, d) float32, real (B, T) bool) to (B, d), if it does as it must."""

    def __call__(self, vectors_B_T_D: torch.Tensor, real_B_T: torch.Tensor, /) -> Any:
        """What it says."""


def load_program(stored: bytes, device: torch.device) -> Program:
    """The program of a file's bytes.

    Args:
        stored: TorchScript as `torch.jit.save` leaves it, or an ONNX model whose weights are in the same file.
        device: where TorchScript runs. ONNX runs on the processor, and its answer comes back to where it was asked.

    Raises:
        ConfigError: it is ONNX, and ONNX Runtime is not installed.
        RuntimeError: it is neither.
    """
    if not stored.startswith(ZIP):
        return OnnxProgram(stored)
    return torch.jit.load(io.BytesIO(stored), map_location=device).eval()  # type: ignore[no-untyped-call]


class OnnxProgram:
    """An ONNX model with two inputs, in the order of `Program`'s, and one output.

    Args:
        stored: the file's bytes.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        RuntimeError: it cannot be loaded, or takes other inputs.
    """

    def __init__(self, stored: bytes) -> None:
        try:
            import onnxruntime  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError("ONNX Runtime runs this backbone's program: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        # Threads that spin while nothing is asked take the cores that the LLM and the service compute on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights in another file would be looked for where the process happens to run, and are in no bundle.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
        with _told():
            self._session = onnxruntime.InferenceSession(stored, options, providers=["CPUExecutionProvider"])
        self._inputs = self._session.get_inputs()
        if len(self._inputs) != 2 or any(each.type not in TYPES for each in self._inputs):
            found = ", ".join(f"{each.name}: {each.type}" for each in self._inputs)
            raise RuntimeError(f"an ONNX model takes two inputs, vectors and which of them are real, not ({found})")

    def __call__(self, vectors_B_T_D: torch.Tensor, real_B_T: torch.Tensor, /) -> Any:
        """What it says; a tuple, if it has more than one output.

        Raises:
            RuntimeError: it cannot be run on these.
        """
        given: dict[str, Any] = {
            each.name: tensor.detach().cpu().numpy().astype(TYPES[each.type])
            for each, tensor in zip(self._inputs, (vectors_B_T_D, real_B_T), strict=True)
        }
        with _told():
            answers = self._session.run(None, given)
        said = [torch.from_numpy(each).to(vectors_B_T_D.device) for each in answers]
        return said[0] if len(said) == 1 else tuple(said)


@contextmanager
def _told() -> Iterator[None]:
    """ONNX Runtime's errors have no class in common, and several lines."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        hint = "its weights are in a second file: save all in one. " * ("External data" in said)
        raise RuntimeError(f"{hint}{said}") from error
