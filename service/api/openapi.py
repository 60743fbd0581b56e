"""The OpenAPI document: FastAPI's, completed by what it cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.routes import HEALTH
from service.api.schemas.explain import GenreStart, ItemStart, Token
from service.api.schemas.problem import Problem

REFERENCE = "#/components/schemas/{model}"
REFERRED: tuple[type[BaseModel], ...] = (Problem, GenreStart, ItemStart, Token)
"""What is referred to by name alone."""
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key as a bearer token."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The API key."},
    "password": {"type": "http", "scheme": "basic", "description": "The API key as password, for browsers."},
}


def install(app: FastAPI, with_key: bool) -> None:
    """Have `app` describe itself.

    Args:
        app: with all its routes.
        with_key: whether a key is asked for.
    """

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app, with_key)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def document(app: FastAPI, with_key: bool) -> dict[str, Any]:
    """The whole document."""
    content = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = content.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, referred = models_json_schema([(model, "serialization") for model in REFERRED], ref_template=REFERENCE)
    schemas.update({name: schema for name, schema in referred["$defs"].items() if name not in schemas})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if with_key:
        components["securitySchemes"] = SECURITY
        content["security"] = [{name: []} for name in SECURITY]
        for path in HEALTH:
            content["paths"][path]["get"]["security"] = []
    return content
