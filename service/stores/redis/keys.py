"""The names of everything in Redis.

    allmrec:2:<tenant>:<catalogue>:{<user>}:log       events by id, and how many there have been
    allmrec:2:<tenant>:<catalogue>:{<user>}:known     items met that the catalogue had, with their latest time
    allmrec:2:<tenant>:<catalogue>:{<user>}:unknown   items met that it did not have
    allmrec:2:<tenant>:<catalogue>:{<user>}:ids       ids of more events, by when they came: a sorted set
    allmrec:2:<tenant>:x:<slot>                       a user representation, after the digest of what it is of

The 2 is the layout's version. The braces are a hash tag: in a cluster, all of one user lies on one node.
"""

from __future__ import annotations

import re

from service.stores.port import UserKey

ROOT = "allmrec"
LAYOUT = 2
LAYOUT_KEY = f"{ROOT}:layout"
OLD_USERS = f"{ROOT}:*:live:*"
"""Users as the first version kept them: sorted sets of item ids by seconds."""

_PARTS = ("log", "known", "unknown", "ids")
_OF_USER = re.compile(rf"{ROOT}:{LAYOUT}:[^:]*:[^:]*:\{{[^:{{}}]*\}}:({'|'.join(_PARTS)})", re.DOTALL)
_ESCAPES = str.maketrans({"%": "%25", ":": "%3A", "{": "%7B", "}": "%7D"})


class Keys:
    """The names of one tenant."""

    def __init__(self, tenant: str) -> None:
        self._root = f"{ROOT}:{LAYOUT}:{_escape(tenant)}"

    def of_user(self, user: UserKey) -> list[str]:
        """Log, known and unknown items, and ids of a user."""
        root = f"{self._root}:{_escape(user.catalogue)}:{{{_escape(user.user_id)}}}"
        return [f"{root}:{part}" for part in _PARTS]

    def vector(self, slot: int) -> str:
        """A cached representation."""
        return f"{self._root}:x:{slot}"


def old_user(key: str) -> UserKey | None:
    """Whose key of the first version this is; none's if it is of this layout, with a tenant or catalogue `live`."""
    if _OF_USER.fullmatch(key):
        return None
    catalogue, _, user_id = key.removeprefix(f"{ROOT}:").partition(":live:")
    return UserKey(catalogue, user_id)


def _escape(text: str) -> str:
    """No brace and no colon of an id may be taken for one of a key's."""
    return text.translate(_ESCAPES)
