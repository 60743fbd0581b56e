"""`POST /feedback`."""

from __future__ import annotations

import time

from fastapi import APIRouter

from service.api.dependencies import DeploymentOf, RuntimeOf, ServicesOf
from service.api.problems import responses
from service.api.schemas.feedback import FeedbackRequest, FeedbackResponse
from service.stores.port import Event, StoreError

router = APIRouter()


@router.post("/feedback", status_code=202, responses=responses(413), tags=["users"])
async def post_feedback(
    body: FeedbackRequest, runtime: RuntimeOf, services: ServicesOf, deployment: DeploymentOf
) -> FeedbackResponse:
    """Tell what users did. Their next answers reflect it. Sending an event twice changes nothing."""
    now = time.time()
    events = [
        Event(sent.user_id, sent.item_id, sent.timestamp.timestamp() if sent.timestamp else now) for sent in body.events
    ]
    try:
        await services.histories.record(deployment, events)
    except StoreError:
        runtime.metrics.feedback_refused(len(events))
        raise
    for sent in body.events:
        runtime.metrics.feedback_events.labels(sent.type).inc()
    _, missing = deployment.catalogue.indices_of(dict.fromkeys(sent.item_id for sent in body.events))
    return FeedbackResponse(accepted=len(body.events), missing_item_ids=missing)
