"""Leaving alone what failed."""

from __future__ import annotations

from service.stores.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_lets_one_call_try_again_at_a_time() -> None:
    clock = Clock()
    breaker = Breaker(retry_seconds=2.0, clock=clock)
    assert breaker.allows()
    breaker.failed()
    assert breaker.open
    assert not breaker.allows()
    clock.now = 2.0
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()
