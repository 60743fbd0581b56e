"""`POST /feedback`."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from service.api.dependencies import ServingOf
from service.api.problems import problem, status_and_title
from service.api.schemas.feedback import FeedbackRequest, FeedbackResponse
from service.api.schemas.problem import FieldProblem
from service.stores.port import StoreError
from service.users.histories import Feedback

router = APIRouter()


@router.post("/feedback", status_code=202, response_model=FeedbackResponse, tags=["users"])
async def post_feedback(body: FeedbackRequest, serving: ServingOf, request: Request) -> FeedbackResponse | Response:
    """Tell what users did. Their next answers reflect it. Sending an event twice changes nothing.

    503 means that events may not be stored: those that `errors` names, or all if it names none. Send them again.
    """
    metrics, deployment = serving.runtime.metrics, serving.deployment
    feedback = [
        Feedback(
            user_id=sent.user_id,
            item_id=sent.item_id,
            type=sent.type,
            timestamp=None if sent.timestamp is None else sent.timestamp.timestamp(),
            event_id=sent.event_id,
            recommendation_id=sent.recommendation_id,
        )
        for sent in body.events
    ]
    try:
        recorded = await serving.services.histories.record(deployment, feedback)
    except StoreError:
        metrics.feedback_refused(len(feedback))
        raise
    for place in recorded.stored:
        metrics.feedback_events.labels(body.events[place].type).inc()
    if recorded.refused:
        metrics.feedback_refused(len(recorded.refused))
        return _partly(request, len(feedback), recorded.refused)
    _, missing = deployment.catalogue.indices_of(dict.fromkeys(sent.item_id for sent in body.events))
    return FeedbackResponse(accepted=len(body.events), missing_item_ids=missing)


def _partly(request: Request, events: int, refused: Mapping[int, StoreError]) -> Response:
    """Which events are not stored."""
    status, title = status_and_title(StoreError)
    detail = (
        f"{len(refused)} of {events} events are not known to be stored: `errors` names them. The others are: they need"
        " not be sent again"
    )
    errors = [FieldProblem(field=f"events.{place}", message=str(error)) for place, error in sorted(refused.items())]
    return problem(request.scope, status, title, detail, errors)
