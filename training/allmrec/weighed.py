"""What the stage `blend` leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.bundle.blend import Blends

BLENDS_FILE = "blends.json"
TITLES_FILE = "title_log_probs.npy"


@dataclass(frozen=True)
class Weighed:
    """What the stage `blend` leaves.

    Attributes:
        blends: of the signals, with the LLM and without.
        title_log_probs: (N+1,) what the LLM said of each title alone; (0,) where no way to ask it needs that.
    """

    blends: Blends
    title_log_probs: np.ndarray

    @classmethod
    def load(cls, directory: Path) -> Weighed:
        """From the stage's folder."""
        blends = Blends.model_validate_json((directory / BLENDS_FILE).read_text(encoding="utf-8"))
        return cls(blends, load_titles(directory))


def load_titles(directory: Path) -> np.ndarray:
    """`title_log_probs` of above, of a stage that may not have ended."""
    path = directory / TITLES_FILE
    return np.load(path) if path.is_file() else np.zeros(0, dtype=np.float32)
