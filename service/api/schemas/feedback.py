"""`POST /feedback`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import Id, Request, Timestamp

MAX_EVENTS = 1000


class FeedbackEvent(Request):
    """A user met an item."""

    user_id: Id
    item_id: Id
    type: Literal["view", "click", "purchase", "like"] = "view"
    timestamp: Timestamp | None = Field(
        None, description="Now, after all that is known of the user, if not given. One in the future is refused."
    )
    event_id: Id | None = Field(
        None,
        description="An event whose id came before is not stored again. Without one, user, item, type and time make the"
        " event; without a time, too, the same within five minutes is the same.",
    )
    recommendation_id: Id | None = Field(None, description="The answer that led there; kept with the event.")


class FeedbackRequest(Request):
    """Events of any number of users."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"events": [{"user_id": "u42", "item_id": "i9", "type": "click"}]}]}
    )

    events: list[FeedbackEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class FeedbackResponse(BaseModel):
    """What was stored: all of it."""

    accepted: int
    missing_item_ids: list[str] = Field(description="Stored, but they count only once a bundle has these items.")
