"""`GET /explain/genre` and `GET /explain/item`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from service.api.dependencies import ServingOf
from service.api.problems import responses
from service.api.schemas.explain import (
    Effect,
    Evidence,
    FavoriteGenre,
    GenreQuery,
    GenreResponse,
    GenreStart,
    ItemQuery,
    ItemResponse,
    ItemStart,
    Reason,
    Token,
)
from service.api.schemas.items import ItemReference
from service.api.streaming import arrival, event, unless_gone
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.usecases.explain import Explanation, GenreAnswer, ItemAnswer
from service.usecases.narration import Narration

router = APIRouter()


def _events(first: str, start: type[BaseModel], whole: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of an answer that may be streamed, and of the errors."""
    names: dict[str, type[BaseModel]] = {first: start, "token": Token, "done": whole}
    schema = {
        "type": "string",
        "contentMediaType": "text/event-stream",
        "pattern": f"^event: {first}\ndata: ",
        "description": f"Events `{first}` ({start.__name__}), `token` (Token) as often as there are pieces, and `done`"
        f" ({whole.__name__}); the data of each is one line of JSON.",
        "x-events": {name: {"$ref": f"#/components/schemas/{model.__name__}"} for name, model in names.items()},
    }
    return {**responses(404), 200: {"content": {"text/event-stream": {"schema": schema}}}}


@router.get(
    "/explain/genre",
    response_model=GenreResponse,
    responses=_events("genres", GenreStart, GenreResponse),
    tags=["explain"],
)
async def get_genre(
    request: Request,
    serving: ServingOf,
    query: Annotated[GenreQuery, Query()],
) -> GenreResponse | StreamingResponse:
    """A user's favourite genres, what in the history speaks for each, and a sentence about the first.

    Streamed, the events are `genres` (the answer without its sentence), `token` for every piece of the sentence, and
    `done` (the whole answer, whose sentence is the one that counts).
    """
    runtime, deployment = serving.runtime, serving.deployment
    deadline = Deadline(runtime.settings.explain_timeout_ms, arrival(request))
    explainer = serving.services.explainer
    answer = await unless_gone(request, explainer.genres(deployment, query.user_id, query.top_k, deadline))
    narration = explainer.narrate_genres(deployment, answer, deadline)

    def response() -> GenreResponse:
        if deadline.remaining() < 0:
            runtime.metrics.deadline_missed("/explain/genre")
        head = _head(deployment, query.user_id, answer, narration, deadline)
        return GenreResponse(**head, genres=_genres(deployment, answer))

    if query.stream:
        return _stream("genres", GenreStart, narration, response)
    await unless_gone(request, narration.whole())
    return response()


@router.get(
    "/explain/item",
    response_model=ItemResponse,
    responses=_events("item", ItemStart, ItemResponse),
    tags=["explain"],
)
async def get_item(
    request: Request,
    serving: ServingOf,
    query: Annotated[ItemQuery, Query()],
) -> ItemResponse | StreamingResponse:
    """How probable an item is for a user, what in the history speaks for it, and a sentence about it.

    Streamed, the events are `item` (the answer without its sentence), `token` for every piece of the sentence, and
    `done` (the whole answer, whose sentence is the one that counts).
    """
    runtime, deployment = serving.runtime, serving.deployment
    deadline = Deadline(runtime.settings.explain_timeout_ms, arrival(request))
    explainer = serving.services.explainer
    answer = await unless_gone(request, explainer.item(deployment, query.user_id, query.item_id, deadline))
    narration = explainer.narrate_item(deployment, answer, deadline)

    def response() -> ItemResponse:
        if deadline.remaining() < 0:
            runtime.metrics.deadline_missed("/explain/item")
        head = _head(deployment, query.user_id, answer, narration, deadline)
        return ItemResponse(**head, **_item(deployment, answer))

    if query.stream:
        return _stream("item", ItemStart, narration, response)
    await unless_gone(request, narration.whole())
    return response()


def _stream(
    first: str, start: type[BaseModel], narration: Narration, response: Callable[[], BaseModel]
) -> StreamingResponse:
    """The answer without its sentence, the pieces of that, and the whole answer."""

    async def events() -> AsyncIterator[str]:
        yield event(first, start.model_validate(response().model_dump(include=set(start.model_fields))))
        async with aclosing(narration.pieces()) as pieces:
            async for piece in pieces:
                yield event("token", Token(text=piece))
        yield event("done", response())

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _head(
    deployment: Deployment, user_id: str, answer: Explanation, narration: Narration, deadline: Deadline
) -> dict[str, Any]:
    """What all explanations say."""
    return {
        "user_id": user_id,
        "sentence": narration.text,
        "sentence_source": narration.source,
        "ranker": answer.ranker,
        "fallback": answer.fallback,
        "bundle_version": deployment.version,
        "variant": deployment.variant,
        "took_ms": round(deadline.elapsed_ms(), 3),
    }


def _genres(deployment: Deployment, answer: GenreAnswer) -> list[FavoriteGenre]:
    return [
        FavoriteGenre(
            genre=share.genre,
            probability=share.probability,
            evidence=[
                Evidence(
                    **_named(deployment, each.item),
                    effect=each.effect and Effect(probability=each.effect.probability, change=each.effect.change),
                )
                for each in share.evidence
            ],
        )
        for share in answer.genres
    ]


def _item(deployment: Deployment, answer: ItemAnswer) -> dict[str, Any]:
    return {
        "item": ItemReference(**_named(deployment, answer.item)),
        "probability": answer.probability,
        "among": [deployment.catalogue.item_ids[item] for item in answer.among],
        "evidence": [
            Reason(
                **_named(deployment, each.item),
                effect=Effect(probability=each.effect.probability, change=each.effect.change),
            )
            for each in answer.evidence
            if each.effect is not None
        ],
    }


def _named(deployment: Deployment, item: int) -> dict[str, str]:
    return {"item_id": deployment.catalogue.item_ids[item], "title": deployment.catalogue.titles[item]}
