"""What rankers said, kept in a file as it comes: an interrupted evaluation goes on from it, and every figure of a
report can be worked out from it again.

Axes: E users, C candidates of which the first is the positive.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.files import written_atomically
from training.evaluation.held_out import HeldOut
from training.evaluation.measures import Measure
from training.evaluation.metrics import positive_ranks

GROUP, PART = "group:", "part:"
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class ScoreTables:
    """The scores of one measure.

    Args:
        measure: which.
        facts: what they are about; see `facts_of`.
        scores: by ranker id (E, C) scores or, as `measure.keeps_ranks` says, (E,) ranks; of rankers that were asked
            about some users only, of the rows `fewer` of `facts`. Under `part:` and an id those of the first users
            of a ranker that was interrupted.
        path: of the file; None where nothing is kept.
    """

    def __init__(
        self,
        measure: Measure,
        facts: Mapping[str, np.ndarray],
        scores: Mapping[str, np.ndarray],
        path: Path | None = None,
    ) -> None:
        self.measure, self.facts = measure, dict(facts)
        self._scores, self._path = dict(scores), path

    @classmethod
    def open(cls, measure: Measure, directory: Path, facts: Mapping[str, np.ndarray]) -> ScoreTables:
        """What is kept in `directory`, or nothing if that is about something else, or damaged."""
        path = directory / measure.file
        try:
            kept = cls.load(measure, directory) if path.is_file() else None
        except UNREADABLE:
            kept = None
        if kept is None or set(kept.facts) != set(facts):
            return cls(measure, facts, {}, path)
        same = all(np.array_equal(kept.facts[name], values) for name, values in facts.items())
        return cls(measure, facts, kept._scores if same else {}, path)

    @classmethod
    def load(cls, measure: Measure, directory: Path) -> ScoreTables:
        """What is kept in `directory`."""
        with np.load(directory / measure.file) as saved:
            values = {name: saved[name] for name in saved.files}
        facts = {name: table for name, table in values.items() if _is_fact(name)}
        return cls(measure, facts, {name: table for name, table in values.items() if name not in facts})

    def __contains__(self, ranker_id: object) -> bool:
        """Whether that ranker's scores are there."""
        return ranker_id in self._scores

    def add(self, ranker_id: str, scores: np.ndarray) -> None:
        """Keep what a ranker said."""
        self._scores.pop(PART + ranker_id, None)
        self._keep(ranker_id, scores)

    def add_part(self, ranker_id: str, scores: np.ndarray) -> None:
        """Keep what a ranker said of the first users, should it be interrupted."""
        self._keep(PART + ranker_id, scores)

    def part(self, ranker_id: str) -> np.ndarray | None:
        """What `add_part` kept; None if there is nothing."""
        return self._scores.get(PART + ranker_id)

    def _keep(self, key: str, scores: np.ndarray) -> None:
        self._scores[key] = scores
        if self._path is not None:
            with written_atomically(self._path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **{**self.facts, **self._scores})  # type: ignore[arg-type]

    @property
    def ranker_ids(self) -> list[str]:
        """In the order in which they were added."""
        return [name for name in self._scores if not name.startswith(PART)]

    @property
    def users(self) -> int:
        """E."""
        return len(self.facts["users"])

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """By name (E,) masks, `overall` first."""
        named = {name.removeprefix(GROUP): mask for name, mask in self.facts.items() if name.startswith(GROUP)}
        return {"overall": np.ones(self.users, dtype=bool), **named}

    def rows(self, ranker_id: str) -> np.ndarray:
        """The users that a ranker was asked about, by row number."""
        asked = len(self._scores[ranker_id])
        return np.arange(self.users) if asked == self.users else self.facts["fewer"]

    def scores(self, ranker_id: str) -> np.ndarray:
        """(E, C) logits, NaN for users that it was not asked about."""
        said = self._scores[ranker_id]
        table_E_C = np.full((self.users, *said.shape[1:]), np.nan)
        table_E_C[self.rows(ranker_id)] = said
        return table_E_C

    def ranks(self, ranker_id: str) -> np.ndarray:
        """(E,) ranks of the positives, NaN for users that it was not asked about."""
        said = self._scores[ranker_id]
        ranks_E = np.full(self.users, np.nan)
        ranks_E[self.rows(ranker_id)] = said if self.measure.keeps_ranks else positive_ranks(said)
        return ranks_E


def facts_of(held_out: HeldOut, fewer: int, made_from: str = "") -> dict[str, np.ndarray]:
    """What scores are about.

    Args:
        held_out: users and candidates.
        fewer: how many of the users slow rankers are asked about, spread evenly.
        made_from: fingerprint of what the rankers were made from.
    """
    rows = np.unique(np.linspace(0, len(held_out) - 1, min(fewer, len(held_out))).astype(np.int64))
    items = held_out.candidates.items
    return {
        "made_from": np.asarray(made_from),
        "users": held_out.candidates.users,
        "candidates": items,
        "choices": held_out.candidates.mask.sum(axis=1),
        "known": held_out.catalogue.trained[items],
        "fewer": rows,
        **{f"{GROUP}{name}": mask for name, mask in held_out.groups.items()},
    }


_FACTS: Sequence[str] = ("made_from", "users", "candidates", "choices", "known", "fewer")


def _is_fact(name: str) -> bool:
    return name in _FACTS or name.startswith(GROUP)
