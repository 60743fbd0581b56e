"""What the LLM says of a user and a window of candidates, in all ways that the blend weighs.

As user encoder it is asked about the history alone. What a head makes of that is kept like any representation, so that
a repeated request needs no LLM for it.
"""

from __future__ import annotations

import numpy as np

from models.rankers.of_model import ENCODER
from models.recommending.person import Person
from service.deadline import Deadline
from service.deployments.deployment import Deployment
from service.llm_gate import LLMGate
from service.users.representations import Representations

STORE_SHARE = 0.25
"""Of a request's time, how much Redis may take for the history, and again for each representation."""


class Asking:
    """Asks in one go.

    Args:
        llm: the gate to the LLM.
        representations: keeps what the LLM made of histories.
        reserve_ms: time that the answer takes afterwards.
    """

    def __init__(self, llm: LLMGate, representations: Representations, reserve_ms: float) -> None:
        self._llm, self._representations, self._reserve_ms = llm, representations, reserve_ms

    async def answers(
        self,
        deployment: Deployment,
        person: Person,
        window: np.ndarray,
        deadline: Deadline,
    ) -> dict[str, np.ndarray]:
        """(W,) what each way to ask says of the candidates.

        Args:
            deployment: whose blend.
            person: who is asked about.
            window: (W,) item numbers.
            deadline: of the request.

        Raises:
            FallbackError: the LLM is late, down or has too much to do, or would be late.
        """
        encoded = None
        if ENCODER in deployment.lists.ways:
            patience = STORE_SHARE * max(0.0, deadline.remaining(self._reserve_ms))
            encoded = await self._representations.encoded(deployment, person.history, patience)
        ways = [way for way in deployment.lists.ways if way != ENCODER or encoded is None]
        said: dict[str, np.ndarray] = {}
        if ways:
            told = await self._llm.ask(
                lambda: deployment.questions(person, window, ways), deadline.remaining(self._reserve_ms)
            )
            said = dict(zip(ways, told, strict=True))
        if ENCODER in said:
            encoded = deployment.model.encoded_user(said[ENCODER])
            self._representations.keep_encoded(deployment, person.history, encoded)
        if encoded is not None:
            said[ENCODER] = deployment.model.cf_logits(encoded, window)
        return said
