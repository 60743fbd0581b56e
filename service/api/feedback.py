"""`POST /feedback`."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import ServingOf
from service.api.problems import responses
from service.api.schemas.feedback import FeedbackRequest, FeedbackResponse
from service.stores.port import StoreError
from service.users.histories import Feedback

router = APIRouter()


@router.post("/feedback", status_code=202, responses=responses(413), tags=["users"])
async def post_feedback(body: FeedbackRequest, serving: ServingOf) -> FeedbackResponse:
    """Tell what users did. Their next answers reflect it. Sending an event twice changes nothing."""
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
        stored = await serving.services.histories.record(deployment, feedback)
    except StoreError:
        metrics.feedback_refused(len(feedback))
        raise
    for place in stored:
        metrics.feedback_events.labels(body.events[place].type).inc()
    _, missing = deployment.catalogue.indices_of(dict.fromkeys(sent.item_id for sent in body.events))
    return FeedbackResponse(accepted=len(body.events), missing_item_ids=missing)
