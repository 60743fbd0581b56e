"""The API's routes: translate, call a use case, translate back."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from models.catalogue import MAX_GENRES
from models.errors import ClientError, NotFoundError
from service.api.problems import responses
from service.api.schemas import (
    About,
    FavoriteGenre,
    FeedbackRequest,
    FeedbackResponse,
    GenreResponse,
    HistoryEntry,
    HistoryItem,
    Item,
    ItemReference,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    User,
)
from service.api.streaming import event, unless_gone
from service.deadline import Deadline
from service.deployments.deployment import Active
from service.runtime import Runtime, Services
from service.stores.port import Event
from service.usecases import recommend
from service.usecases.explain import GenreAnswer, Narration

SAMPLE_USERS = 12


async def _runtime(request: Request) -> Runtime:
    """Async, as all dependencies here: FastAPI sends others through a thread."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _services(runtime: Annotated[Runtime, Depends(_runtime)]) -> Services:
    return runtime.require()


RuntimeOf = Annotated[Runtime, Depends(_runtime)]
ServicesOf = Annotated[Services, Depends(_services)]

router = APIRouter(responses=responses(401, 422, 503))


@router.post("/recommend", responses=responses(413), tags=["recommend"])
async def post_recommend(
    body: RecommendRequest, request: Request, runtime: RuntimeOf, services: ServicesOf
) -> RecommendResponse:
    """Recommend items to a user, known or not, or rank given candidates."""
    if body.user_id is None and body.history is None:
        raise ClientError("user_id or history is required: say whom to recommend to")
    settings, active = runtime.settings, services.active
    timeout_ms = min(body.timeout_ms or settings.timeout_ms, settings.max_timeout_ms)
    deadline = Deadline(timeout_ms, request.state.started)
    query = recommend.Query(
        user_id=body.user_id,
        history=_in_order(body.history or []),
        candidates=body.candidates,
        categories=body.filter.categories,
        exclude_item_ids=body.filter.exclude_item_ids,
        exclude_seen=body.filter.exclude_seen,
        num_results=body.num_results,
    )
    answer = await unless_gone(request, services.recommender.recommend(active, query, deadline))
    return RecommendResponse(
        recommendation_id=uuid.uuid4().hex,
        items=[
            RecommendedItem(
                item_id=active.catalogue.item_ids[ranked.item],
                rank=rank,
                score=ranked.score,
                ranker=ranked.ranker,
                metadata=_metadata(active, ranked.item, body.return_metadata),
            )
            for rank, ranked in enumerate(answer.items, start=1)
        ],
        missing_item_ids=answer.missing,
        ranker=answer.ranker,
        fallback=answer.fallback,
        bundle_version=active.version,
        variant=active.variant,
        took_ms=round(deadline.elapsed_ms(), 3),
    )


@router.get(
    "/explain/genre",
    response_model=GenreResponse,
    responses={**responses(404), 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    tags=["explain"],
)
async def get_genre(
    request: Request,
    runtime: RuntimeOf,
    services: ServicesOf,
    user_id: Annotated[str, Query(min_length=1, max_length=256)],
    top_k: Annotated[int, Query(ge=1, le=MAX_GENRES)] = 3,
    stream: Annotated[bool, Query(description="Send the sentence as server-sent events.")] = False,
) -> GenreResponse | StreamingResponse:
    """A user's favourite genres, what in the history speaks for each, and a sentence about the first.

    Streamed, the events are `genres` (the answer without its sentence), `token` for every piece of the sentence, and
    `done` (the whole answer, whose sentence is the one that counts).
    """
    active = services.active
    deadline = Deadline(runtime.settings.explain_timeout_ms, request.state.started)
    answer = await unless_gone(request, services.explainer.genres(active, user_id, top_k, deadline))
    narration = services.explainer.narrate(active, answer, deadline)

    def response() -> GenreResponse:
        return _genre_response(active, user_id, answer, narration, deadline)

    async def events() -> AsyncIterator[str]:
        yield event("genres", response().model_dump(exclude={"sentence", "sentence_source"}))
        async with aclosing(narration.pieces()) as pieces:
            async for piece in pieces:
                yield event("token", {"text": piece})
        yield event("done", response().model_dump())

    if stream:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)
    await unless_gone(request, narration.whole())
    return response()


@router.post("/feedback", status_code=202, responses=responses(413), tags=["users"])
async def post_feedback(body: FeedbackRequest, runtime: RuntimeOf, services: ServicesOf) -> FeedbackResponse:
    """Tell what users did. Their next answers reflect it. Sending an event twice changes nothing."""
    now = time.time()
    await services.histories.record(
        [
            Event(sent.user_id, sent.item_id, sent.timestamp.timestamp() if sent.timestamp else now)
            for sent in body.events
        ]
    )
    for sent in body.events:
        runtime.metrics.feedback_events.labels(sent.type).inc()
    _, missing = services.active.catalogue.indices_of(dict.fromkeys(sent.item_id for sent in body.events))
    return FeedbackResponse(accepted=len(body.events), missing_item_ids=missing)


@router.get("/items/{item_id:path}", responses=responses(404), tags=["catalogue"])
async def get_item(item_id: str, services: ServicesOf) -> Item:
    """An item."""
    catalogue = services.active.catalogue
    item = catalogue.index_of(item_id)
    if item is None:
        raise NotFoundError(f"item '{item_id}' is not in the catalogue")
    return Item(
        item_id=item_id,
        title=catalogue.titles[item],
        description=catalogue.descriptions[item],
        categories=list(catalogue.categories[item]),
        interactions=int(catalogue.interactions[item]),
        cold=not bool(catalogue.trained[item]),
    )


@router.get("/users/{user_id:path}", responses=responses(404), tags=["users"])
async def get_user(user_id: str, services: ServicesOf) -> User:
    """A user's history, as answers see it."""
    active = services.active
    history = await services.histories.of(active, user_id)
    if not history.known:
        raise NotFoundError(f"user '{user_id}' is unknown: it has no history here")
    catalogue = active.catalogue
    return User(
        user_id=user_id,
        history=[
            HistoryItem(
                item_id=catalogue.item_ids[item],
                title=catalogue.titles[item],
                categories=list(catalogue.categories[item]),
            )
            for item in history.items[::-1]
        ],
        live_events=history.live,
        bundle_version=active.version,
    )


@router.get("/about", tags=["catalogue"])
async def get_about(runtime: RuntimeOf, services: ServicesOf) -> About:
    """What is being served, and a few users to try."""
    active = services.active
    manifest = active.bundle.manifest
    domain = manifest.prompt.domain
    return About(
        name=manifest.name,
        bundle_version=active.version,
        variant=active.variant,
        llm=manifest.llm.name,
        engine=runtime.settings.engine,
        backbone=manifest.backbone.kind,
        items=manifest.items,
        users=manifest.users,
        noun=domain.noun,
        verb=domain.verb,
        past=domain.past,
        genres=active.composer.genres,
        sample_user_ids=active.sample_users(SAMPLE_USERS),
    )


def _in_order(history: Sequence[HistoryEntry]) -> list[str]:
    moments = [entry.timestamp.timestamp() for entry in history if entry.timestamp is not None]
    if len(moments) < len(history):
        return [entry.item_id for entry in history]
    ordered = sorted(zip(moments, history, strict=True), key=lambda pair: pair[0])
    return [entry.item_id for _, entry in ordered]


def _metadata(active: Active, item: int, fields: Sequence[str]) -> dict[str, str | int | list[str]]:
    catalogue = active.catalogue
    known: dict[str, str | int | list[str]] = {
        "title": catalogue.titles[item],
        "description": catalogue.descriptions[item],
        "categories": list(catalogue.categories[item]),
        "interactions": int(catalogue.interactions[item]),
    }
    return {name: known[name] for name in fields}


def _genre_response(
    active: Active, user_id: str, answer: GenreAnswer, narration: Narration, deadline: Deadline
) -> GenreResponse:
    catalogue = active.catalogue
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
        bundle_version=active.version,
        variant=active.variant,
        took_ms=round(deadline.elapsed_ms(), 3),
    )
