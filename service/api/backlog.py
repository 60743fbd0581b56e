"""How many connections the kernel holds that are not accepted yet."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

_QUEUED = 24
"""Where a listening socket's TCP_INFO has them (`tcpi_unacked`)."""


def backlog_of(listeners: Iterable[Any]) -> Callable[[], int]:
    """Asks the kernel, at each call, about these sockets. 0 where it cannot say: this is Linux's.

    Args:
        listeners: listening sockets of TCP; of others nothing is known.
    """
    families = (socket.AF_INET, socket.AF_INET6)
    asked = [each for each in listeners if hasattr(socket, "TCP_INFO") and each.family in families]

    def count() -> int:
        try:
            return sum(_queued(each) for each in asked)
        except (OSError, ValueError):  # they are closed, as at the end
            return 0

    return count


def _queued(listener: Any) -> int:
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED + 4)
    return int(struct.unpack_from("=I", info, _QUEUED)[0])
