"""What a user's or an item's id may be: what the importers let in is what the service accepts."""

from __future__ import annotations

MAX_ID_LENGTH = 256
"""Characters, at most."""
