"""Requests made up from the OpenAPI document, every answer checked: a small version in the suite, a large one as

python -m tests.service.api.fuzzing --requests 20000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import unsupported_method

from tests.service.api.hosting import on_a_socket
from tests.service.world import fake_engine, make_world

OPERATIONS = [
    ("POST", "/recommend"),
    ("GET", "/explain/genre"),
    ("GET", "/explain/item"),
    ("POST", "/feedback"),
    ("GET", "/items/{item_id}"),
    ("GET", "/users/{user_id}"),
    ("GET", "/about"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
]
REFUSING = OPERATIONS[:4]  # the others take any text in their path, or nothing
CASES = [
    *((GenerationMode.POSITIVE, *operation) for operation in OPERATIONS),
    *((GenerationMode.NEGATIVE, *operation) for operation in REFUSING),
]
# The document cannot say that times in the future are refused.
PAST = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2026, 1, 1))
schemathesis.openapi.format("date-time", PAST.map(lambda moment: f"{moment.isoformat()}Z"))

STEADY = 5  # operations without parameters need no more requests


def fuzz(schema: BaseSchema, mode: Any, method: str, path: str, examples: int, begin: int = 0) -> int:
    """Check `examples` requests to one operation; returns how many were."""
    operation = schema[path][method]
    checked = 0

    @seed(begin)
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Case) -> None:
        nonlocal checked
        case.call_and_validate(excluded_checks=[unsupported_method])
        checked += 1

    holds()
    return checked


def main() -> None:
    """Fuzz a service of its own and say what was checked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started, checked = time.monotonic(), 0
    fuzzed = [case for case in CASES if "{" in case[2] or case[1:] in REFUSING]
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        with on_a_socket(world.settings_for(Path(folder)), fake_engine(world)) as (port, _):
            schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
            for mode, method, path in CASES:
                examples = -(-arguments.requests // len(fuzzed)) if (mode, method, path) in fuzzed else STEADY
                count = fuzz(schema, mode, method, path, examples, arguments.seed)
                print(f"{mode.value:9} {method:5} {path:18} {count:6}", flush=True)  # noqa: T201
                checked += count
    print(f"{checked} requests checked in {time.monotonic() - started:.0f} s")  # noqa: T201
    if checked < arguments.requests:
        raise SystemExit(f"{arguments.requests} were to be checked")


if __name__ == "__main__":
    main()
