"""The injected tokens read by the token law: what an LLM would rank that made no mistake in reading them.

It is the opponent by which the LLM's own reading is measured: with it, but without an LLM.
"""

from __future__ import annotations

import numpy as np

from models.composer import PromptComposer
from models.llm.law import ExactReader, law_logits, series_table
from models.llm.token_interface import TokenInterface
from models.rankers.base import Audience, LocalRanker, mask_padding


class TokenRanker(LocalRanker):
    """The law's logits of the tokens that `LLMRanker` injects.

    Args:
        id: of the ranker.
        title: for people.
        composer: says what a prompt shows.
        interface: the LLM's.
        text_only: read q_i for every item.
    """

    def __init__(
        self,
        id: str,  # noqa: A002
        title: str,
        composer: PromptComposer,
        interface: TokenInterface,
        *,
        text_only: bool = False,
    ) -> None:
        self.id, self.title = id, title
        self._composer, self._interface = composer, interface
        self._joint = composer.model.joint_text if text_only else composer.model.joint_item

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        users_E_D = self._composer.model.user_vectors(users.histories, users.user_ids)
        shown = [self._composer.template.config.shown(history) for history in users.histories]
        interface = self._interface.to(users_E_D.device)
        reader = ExactReader(self._composer.model.projector, interface)
        series_E_C = series_table(self._composer.titles, shown, candidates_E_C)
        return mask_padding(
            law_logits(reader, users_E_D, self._joint, shown, candidates_E_C, series_E_C), candidates_E_C
        )
