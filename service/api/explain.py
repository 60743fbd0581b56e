"""`GET /explain/genre`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from service.api.dependencies import DeploymentOf, RuntimeOf, ServicesOf
from service.api.problems import responses
from service.api.schemas.explain import FavoriteGenre, GenreQuery, GenreResponse, GenreStart, GenreToken
from service.api.schemas.items import ItemReference
from service.api.streaming import arrival, event, unless_gone
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.usecases.explain import GenreAnswer, Narration

router = APIRouter()


EVENTS = {
    "schema": {
        "type": "string",
        "contentMediaType": "text/event-stream",
        "pattern": "^event: genres\ndata: ",
        "description": "Events `genres` (GenreStart), `token` (GenreToken) as often as there are pieces, and `done`"
        " (GenreResponse); the data of each is one line of JSON.",
        "x-events": {
            "genres": {"$ref": "#/components/schemas/GenreStart"},
            "token": {"$ref": "#/components/schemas/GenreToken"},
            "done": {"$ref": "#/components/schemas/GenreResponse"},
        },
    }
}


@router.get(
    "/explain/genre",
    response_model=GenreResponse,
    responses={**responses(404), 200: {"content": {"text/event-stream": EVENTS}}},
    tags=["explain"],
)
async def get_genre(
    request: Request,
    runtime: RuntimeOf,
    services: ServicesOf,
    deployment: DeploymentOf,
    query: Annotated[GenreQuery, Query()],
) -> GenreResponse | StreamingResponse:
    """A user's favourite genres, what in the history speaks for each, and a sentence about the first.

    Streamed, the events are `genres` (the answer without its sentence), `token` for every piece of the sentence, and
    `done` (the whole answer, whose sentence is the one that counts).
    """
    deadline = Deadline(runtime.settings.explain_timeout_ms, arrival(request))
    answer = await unless_gone(request, services.explainer.genres(deployment, query.user_id, query.top_k, deadline))
    narration = services.explainer.narrate(deployment, answer, deadline)

    def response() -> GenreResponse:
        if narration.source is not None and deadline.remaining() < 0:
            runtime.metrics.deadline_missed("/explain/genre")
        return _response(deployment, query.user_id, answer, narration, deadline)

    async def events() -> AsyncIterator[str]:
        yield event("genres", GenreStart.model_validate(response(), from_attributes=True))
        async with aclosing(narration.pieces()) as pieces:
            async for piece in pieces:
                yield event("token", GenreToken(text=piece))
        yield event("done", response())

    if query.stream:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)
    await unless_gone(request, narration.whole())
    return response()


def _response(
    deployment: Deployment, user_id: str, answer: GenreAnswer, narration: Narration, deadline: Deadline
) -> GenreResponse:
    catalogue = deployment.catalogue
    return GenreResponse(
        user_id=user_id,
        genres=[
            FavoriteGenre(
                genre=share.genre,
                probability=share.probability,
                evidence=[
                    ItemReference(item_id=catalogue.item_ids[item], title=catalogue.titles[item])
                    for item in share.evidence
                ],
            )
            for share in answer.genres
        ],
        sentence=narration.text,
        sentence_source=narration.source,
        ranker=answer.ranker,
        fallback=answer.fallback,
        bundle_version=deployment.version,
        variant=deployment.variant,
        took_ms=round(deadline.elapsed_ms(), 3),
    )
