"""What errors are to HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

import pytest

from models.errors import AllmrecError, ClientError, ServerError
from service.api.problems import PROBLEMS, status_and_title


def subclasses(base: type[Exception]) -> Iterator[type[Exception]]:
    for error in base.__subclasses__():
        yield error
        yield from subclasses(error)


def test_an_error_that_is_not_listed_is_what_its_base_is() -> None:
    class TornError(ServerError):
        pass

    assert status_and_title(TornError) == (503, "Service unavailable")
    assert status_and_title(ZeroDivisionError) == (500, "Internal error")


@pytest.mark.parametrize("error", PROBLEMS)
def test_every_title_is_one_line_without_details(error: type[Exception]) -> None:
    _, title = PROBLEMS[error]
    assert 0 < len(title) < 40
    assert "\n" not in title


@pytest.mark.parametrize(("base", "first", "last"), [(ClientError, 400, 499), (ServerError, 500, 599)])
def test_whose_fault_an_error_is_decides_its_status(base: type[AllmrecError], first: int, last: int) -> None:
    """Clients can mend what begins with 4, operators what begins with 5."""
    for error in (base, *subclasses(base)):
        status, _ = status_and_title(error)
        assert first <= status <= last, error
    assert status_and_title(AllmrecError)[0] == HTTPStatus.INTERNAL_SERVER_ERROR
