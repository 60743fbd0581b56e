"""One text for each name, however many users met it."""

from __future__ import annotations


class Names:
    """Shares equal texts, and lets go of what was not shared for long: at most twice `size` are kept.

    Not `sys.intern`: in some versions of Python what it was given stays for ever, and clients send names.

    Args:
        size: how many names a generation has. Those that the latest two have not seen go.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._latest: dict[str, str] = {}
        self._before: dict[str, str] = {}

    def __len__(self) -> int:
        """How many names are kept."""
        return len(self._latest.keys() | self._before.keys())

    def share(self, name: str) -> str:
        """The text that all have of this name."""
        shared = self._latest.get(name)
        if shared is None:
            shared = self._before.get(name, name)
            self._latest[shared] = shared
            if len(self._latest) >= self._size:
                self._latest, self._before = {}, self._latest
        return shared
