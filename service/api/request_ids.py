"""Ids by which an answer, its problem and its log lines are found."""

from __future__ import annotations

import re
import uuid

_ID = re.compile(r"[\w.:-]{1,128}")


def request_id_of(given: str) -> str:
    """The id that the client gave, if it can be one, else a new one."""
    return given if _ID.fullmatch(given) else uuid.uuid4().hex
