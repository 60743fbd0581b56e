"""`POST /recommend`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request

from models.catalogue import Catalogue
from models.errors import ClientError
from service.api.dependencies import ServingOf
from service.api.schemas.recommend import HistoryEntry, RecommendedItem, RecommendRequest, RecommendResponse
from service.api.streaming import arrival, unless_gone
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.runtime import Services
from service.usecases.recommend import Query

router = APIRouter()

_FIELDS: dict[str, Callable[[Catalogue, int], str | int | list[str]]] = {
    "title": lambda catalogue, item: catalogue.titles[item],
    "description": lambda catalogue, item: catalogue.descriptions[item],
    "categories": lambda catalogue, item: list(catalogue.categories[item]),
    "interactions": lambda catalogue, item: int(catalogue.interactions[item]),
}


@router.post("/recommend", tags=["recommend"])
async def post_recommend(body: RecommendRequest, request: Request, serving: ServingOf) -> RecommendResponse:
    """Recommend items to a user, known or not, or rank given candidates."""
    if body.user_id is None and body.history is None:
        raise ClientError("user_id or history is required: say whom to recommend to")
    services, deployment, settings = serving.services, serving.deployment, serving.runtime.settings
    timeout_ms = min(body.timeout_ms or settings.timeout_ms, settings.max_timeout_ms)
    deadline = Deadline(timeout_ms, arrival(request))
    query = Query(
        user_id=body.user_id,
        history=[
            (entry.item_id, _moment(services, entry, f"history.{place}.timestamp"))
            for place, entry in enumerate(body.history or [])
        ],
        candidates=body.candidates,
        categories=body.filter.categories,
        exclude_item_ids=body.filter.exclude_item_ids,
        exclude_seen=body.filter.exclude_seen,
        num_results=body.num_results,
    )
    answer = await unless_gone(request, services.recommender.recommend(deployment, query, deadline))
    if deadline.remaining() < 0:
        serving.runtime.metrics.deadline_missed("/recommend")
    return RecommendResponse(
        recommendation_id=uuid.uuid4().hex,
        items=[
            RecommendedItem(
                item_id=deployment.catalogue.item_ids[ranked.item],
                rank=rank,
                score=ranked.score,
                ranker=ranked.ranker,
                metadata=_metadata(deployment, ranked.item, body.return_metadata),
            )
            for rank, ranked in enumerate(answer.items, start=1)
        ],
        missing_item_ids=answer.missing,
        ranker=answer.ranker,
        fallback=answer.fallback,
        bundle_version=deployment.version,
        variant=deployment.variant,
        took_ms=round(deadline.elapsed_ms(), 3),
    )


def _moment(services: Services, entry: HistoryEntry, where: str) -> int | None:
    return None if entry.timestamp is None else services.histories.moment(entry.timestamp.timestamp(), where)


def _metadata(deployment: Deployment, item: int, fields: Sequence[str]) -> dict[str, str | int | list[str]]:
    return {name: _FIELDS[name](deployment.catalogue, item) for name in fields}
