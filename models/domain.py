"""How a catalogue is spoken of."""

from __future__ import annotations

from models.config import Config


class Domain(Config):
    """How the prompt speaks of a catalogue: this user has *watched* ..., one next *movie* to *watch*."""

    noun: str = "item"
    verb: str = "buy"
    past: str = "bought"


DOMAINS: dict[str, Domain] = {
    "item": Domain(),
    "movie": Domain(noun="movie", verb="watch", past="watched"),
    "game": Domain(noun="game", verb="play", past="played"),
    "book": Domain(noun="book", verb="read", past="read"),
    "song": Domain(noun="song", verb="listen to", past="listened to"),
}
