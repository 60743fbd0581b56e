"""The residual stream: which directions hold what, as the circuit's heads read and write them."""

from __future__ import annotations

import math

import torch

from models.llm.token_interface import TokenInterface
from training.pretraining.architecture import Architecture, orthogonal
from training.pretraining.circuit.head import Head
from training.pretraining.circuit.positions import PositionCode

NOMINAL_EMBEDDING = 13
"""How long layer norm makes a unit direction at tokens in layer 0: sqrt(384) / sqrt(1 + 16 * .27^2) = 13.3."""
NOMINAL_USER, NOMINAL_TITLE, NOMINAL_CANDIDATE = 7, 6, 9
"""Units for gains, not readings of this architecture: the package's docstring says why."""

_OWN, _PREVIOUS, _SHORT = 1, 0, 2
"""Seeds of the codes: each is a rotation of token identity, so that the three are nearly independent."""


class Residual:
    """Directions of the residual stream, all of unit length and (width,) or (n, width).

    User dimensions hold different things at different positions, and heads keep them apart by who may look where. At
    quotation marks they hold u, the mean y of the history and w; at slots, where u would be, a short code of the
    title's second token; at other tokens u and, over it, the same code of the title's first token, and where y would
    be, the places of titles.

    Args:
        architecture: sizes and layout.
        interface: the convention for injected tokens.
        position_strength: length of a cosine-and-sine pair of the position code.
        generator: of the directions that are random.

    Attributes:
        positions: the position code.
        user, history_similarity, series_weight: the user dimensions: those of u, of the mean y and of w.
        items: all item dimensions. At tokens, all but the first hold the code of the previous token.
        similarity, popularity: of them, those of y and of p.
        user_type, history_type, candidate_type: what kind of slot a position is.
        open_quote, close_quote, start: the token is one of these; `start` is where idle heads look.
        first_of_title, second_of_title: the token stands one or two behind an opening quote.
        wording: the token belongs to what all prompts share.
        noted_logit: at slots, roughly the candidate's logit.
        in_series: at candidates, that a title of the history begins alike.
        identity: the directions left, in which tokens differ.
        own_code: token identity as it is read from a token's embedding.
        previous_code: the part of it that heads write into the item dimensions of the next token.
    """

    def __init__(
        self,
        architecture: Architecture,
        interface: TokenInterface,
        position_strength: float,
        generator: torch.Generator,
    ) -> None:
        self._architecture, self._interface = architecture, interface
        self.width = architecture.hidden_size
        dims = range(self.width)
        eye = torch.eye(self.width)
        self.positions = PositionCode(eye[dims[architecture.position_dims]], position_strength)
        k = architecture.coordinate_size
        users = eye[dims[architecture.user_dims]]
        self.user, self.history_similarity, self.series_weight = users[:k], users[k:-1], users[-1]
        self.items = eye[dims[architecture.item_dims]]
        self.similarity, self.popularity = self.items[k:-1], self.items[-1]

        types = interface.slot_types / interface.slot_types.norm(dim=1, keepdim=True)
        self.user_type, self.history_type, self.candidate_type = types
        axes = self._beside(types, eye[dims[architecture.token_dims]])
        axes = orthogonal(len(axes), generator) @ axes
        self.open_quote, self.close_quote, self.start, self.second_of_title, self.wording = axes[:5]
        self.noted_logit, self.in_series, self.first_of_title = axes[5:8]
        self.identity = axes[8:]
        self.own_code = self.code(len(self.identity), _OWN)
        # The first item dimension is left free.
        self.previous_code = self.code(len(self.items) - 1, _PREVIOUS)

    @staticmethod
    def _beside(types: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """An orthonormal basis of the token dimensions (n, width) without the directions of the slot types."""
        spare = tokens - tokens @ types.T @ types
        return torch.linalg.svd(spare @ spare.T)[0][:, : len(tokens) - len(types)].T @ tokens

    @property
    def slots(self) -> torch.Tensor:
        """(1, width) history and candidate slots."""
        return (self.history_type + self.candidate_type)[None]

    @property
    def quotes(self) -> torch.Tensor:
        """(1, width) quotation marks, opening and closing."""
        return (self.open_quote + self.close_quote)[None]

    @property
    def matched(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The directions of a user's u and an item's z, pairwise."""
        axes = self._interface.user_basis, self._interface.item_basis
        user, item = (basis / basis.norm(dim=1, keepdim=True) for basis in axes)
        return user, item

    @property
    def short_code(self) -> torch.Tensor:
        """What user dimensions keep of another token's identity.

        Of slots' second tokens, which may be the title's end, and of the first tokens of titles, which never are.
        """
        return torch.cat([self.close_quote[None], self.code(len(self.user) - 1, _SHORT)])

    @property
    def identity_parts(self) -> list[torch.Tensor]:
        """Token identity, a head's worth each: 163 dimensions take two heads of 96."""
        return list(self.own_code.chunk(math.ceil(len(self.own_code) / self._architecture.head_size)))

    def code(self, size: int, seed: int) -> torch.Tensor:
        """`size` orthonormal directions of token identity; equal for equal `seed`."""
        # Its own generator: heads of different layers ask for the same code. 1000 keeps clear of a run's small seeds.
        generator = torch.Generator().manual_seed(1000 + seed)
        return orthogonal(len(self.identity), generator)[:size] @ self.identity

    def elsewhere(self) -> torch.Tensor:
        """The position dimensions, but 0 at the start of the text."""
        return self.positions.without_start(self.start)

    def head(self) -> Head:
        """A head that does nothing yet."""
        return Head(self._architecture.head_size, self.width)
