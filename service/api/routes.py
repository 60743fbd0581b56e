"""What a request's path is to the application: its route, and the methods that it can be asked by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

HEALTH = ("/health/live", "/health/ready")
QUIET = (*HEALTH, "/metrics")
"""For whoever operates the service: never refused for load, and not in every line of the log."""


class IdConvertor(StringConvertor):
    """The rest of a path, whatever it is: ids may have slashes and line breaks."""

    regex = "(?s:.*)"


register_url_convertor("id", IdConvertor())


def rest(name: str) -> str:
    """A path's parameter of this name, an id, which is all that is left of the path."""
    return f"{{{name}:id}}"


def methods_of(scope: Scope) -> list[str]:
    """What a path can be asked by."""
    matching = [route for route in leaves(scope["app"].routes) if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in matching for method in getattr(route, "methods", None) or ()}
    return sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())) if methods else []


def leaves(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """All routes, those of included routers as well. Ours have no prefixes."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from leaves(included.routes)


def route_of(scope: Scope) -> str:
    """The route's path template, so that metrics stay few whatever clients ask for."""
    route = scope.get("route")
    if route is None and "app" in scope:
        found = (each for each in leaves(scope["app"].routes) if each.matches(scope)[0] is not Match.NONE)
        route = next(found, None)
    return getattr(route, "path_format", "unmatched")
