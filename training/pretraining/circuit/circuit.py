"""The constructed initialisation: a circuit that ranks injected tokens before any training.

Layer 0: every position learns its predecessor, all but item slots the user's coordinates, and quotation marks the mean
y of the history.
Layer 1: every slot fetches the first and the second token of its title, and notes its own logit; other tokens fetch the
first token of the title they are in, or were in last.
Layer 2: candidates look for titles of the history that begin like theirs. A path token that began several titles takes
up their second tokens by the logits noted; it and the path tokens after it take up where candidates stand that begin
so.
Layer 3: the end of the prompt attends to candidates by their logit and takes up their first tokens, and by minus their
logit to push first tokens away; so the output embedding ranks the candidates, but for the overlap of token codes.
Layer 4: the same position reads its own ranking, and takes back from every candidate what others' codes lent it.
Layer 5: it does so once more; repeated tokens find what followed them, and path tokens what followed them near the
places taken up.

Ordinary initialisation does not find this circuit in minutes; trained from here it only has to be refined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from models.config import Config
from models.errors import ConfigError
from models.llm.token_interface import TokenInterface
from models.scoring.opt_training import POSITION_OFFSET
from training.pretraining.architecture import Architecture, orthogonal

_PLACE_FREQUENCIES = range(4, 11)
"""Of the position code, those that tell titles apart but not the tokens of one; the others would favour late titles."""
_PLACE_DISTANCE = 2
"""A slot stands two after the last token of its title."""


class Gains(Config):
    """Strengths of the circuit, tuned so that the untrained model ranks well.

    `first_sink`, `begin` and `begin_quotes` are large because they outweigh a preference for near positions, in layer
    1, where little else than the tokens themselves is in the residual stream. Deeper in, a large factor on a direction
    that ought to be empty is fatal: the little that training puts there turns the head off. So `follow_quote` is small.
    """

    template: float = 0.25
    position: float = 0.27
    predecessor: float = 1.7
    user_copy: float = 3.2
    history: float = 0.8
    history_sink: float = 0.6
    flag: float = 0.46
    recency: float = 3.7
    first_token: float = 2.3
    second_token: float = 2.2
    induction: float = 0.3
    note: float = 0.92
    note_sink: float = 0.18
    note_recency: float = 1.12
    note_write: float = 0.65
    match: float = 0.94
    gate: float = 0.3
    sink: float = 1.0
    write: float = 4.5
    popularity: float = 1.15
    series: float = 1.1
    series_history: float = 0.02
    series_write: float = 0.3
    series_weight: float = 0.16
    correction_match: float = 0.92
    correction_write: float = 0.65
    second_match: float = 0.75
    second_write: float = 0.35
    path_score: float = 1.2
    path_own: float = 0.56
    path_candidate: float = 0.42
    path_write: float = 2.0
    first_sink: float = 50.0
    first_slots: float = 4.0
    begin: float = 25.0
    begin_slots: float = 2.0
    begin_quotes: float = 20.0
    locate_match: float = 0.43
    locate_score: float = 2.3
    locate_candidate: float = 0.7
    locate_write: float = 0.38
    follow_match: float = 0.65
    follow_near: float = 0.7
    follow_quote: float = 1.2
    follow_sink: float = 0.1
    follow_write: float = 1.2
    output: float = 0.65
    mlp: float = 0.05


@dataclass
class _Head:
    """One attention head in residual coordinates: rows are head dimensions, columns residual ones."""

    size: int
    width: int
    query: torch.Tensor = field(init=False)
    query_bias: torch.Tensor = field(init=False)
    key: torch.Tensor = field(init=False)
    value: torch.Tensor = field(init=False)
    output: torch.Tensor = field(init=False)
    used: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.query, self.key, self.value, self.output = (torch.zeros(self.size, self.width) for _ in range(4))
        self.query_bias = torch.zeros(self.size)

    def match(self, query: torch.Tensor, key: torch.Tensor) -> None:
        """Add <query x_q, key x_k> to the score; both (n, width)."""
        rows = slice(self.used, self.used + len(query))
        if rows.stop > self.size or query.shape != key.shape:
            raise ConfigError(f"heads of {self.size} dimensions are too small for the constructed initialisation")
        self.query[rows], self.key[rows] = query, key
        self.used += len(query)

    def prefer(self, key: torch.Tensor, strength: float) -> None:
        """Add strength * <key, x_k> to the score, whatever the query."""
        self.query_bias[self.used] = strength
        self.key[self.used] = key
        self.used += 1

    def copy(self, source: torch.Tensor, target: torch.Tensor, gain: float) -> None:
        """Read `source` (n, width) of what is attended and add it along `target` (n, width)."""
        self.value[: len(source)] = source
        self.output[: len(target)] = gain * target


class Circuit:
    """Builds the initial weights.

    User dimensions hold different things at different positions, and heads keep them apart by who may look where. At
    quotation marks they hold u, the mean y of the history and w; at slots a short code of the title's second token; at
    other tokens u and, over it, the same code of the title's first token, and where y would be, the places of titles.

    Args:
        architecture: sizes and layout.
        interface: the convention for injected tokens.
        open_quote: the token that begins a title.
        close_quote: the token that ends one.
        start: the token that begins a text.
        template: tokens of the wording that all prompts share, which carry little identity.
        gains: strengths.
        seed: of the random codes.
    """

    def __init__(
        self,
        architecture: Architecture,
        interface: TokenInterface,
        open_quote: int,
        close_quote: int,
        start: int,
        template: set[int],
        gains: Gains,
        seed: int,
    ) -> None:
        self._architecture = architecture
        self._interface = interface
        self._open_quote, self._close_quote, self._start = open_quote, close_quote, start
        self._template = template
        self._gains = gains
        self._generator = torch.Generator().manual_seed(seed)
        self._width = architecture.hidden_size
        dims = range(self._width)
        eye = torch.eye(self._width)
        self._positions = eye[dims[architecture.position_dims]]
        k = architecture.coordinate_size
        self._users = eye[dims[architecture.user_dims]]
        self._user, self._alike_history, self._weight_axis = self._users[:k], self._users[k:-1], self._users[-1]
        self._items = eye[dims[architecture.item_dims]]
        self._alike, self._popularity_axis = self._items[k:-1], self._items[-1]

        types = interface.slot_types / interface.slot_types.norm(dim=1, keepdim=True)
        tokens = eye[dims[architecture.token_dims]]
        spare = tokens - tokens @ types.T @ types
        axes = torch.linalg.svd(spare @ spare.T)[0][:, : len(tokens) - len(types)].T @ tokens
        axes = orthogonal(len(axes), self._generator) @ axes
        self._quote_axis, self._end_axis, self._start_axis, self._second_axis, self._wording_axis = axes[:5]
        self._note_axis, self._series_axis, self._begin_axis = axes[5:8]
        self._identity = axes[8:]
        self._own_code = self._code(len(self._identity), 1)
        # The first item dimension is left free.
        self._previous_code = self._code(len(self._items) - 1, 0)
        self._user_type, self._history_type, self._candidate_type = types
        half = architecture.position_size // 2
        self._frequencies = torch.logspace(math.log10(2.0), math.log10(0.01), half)

    @torch.no_grad()
    def write(self, model: Any) -> None:
        """Overwrite the weights of a stock OPT."""
        decoder = model.model.decoder
        self._embeddings(decoder.embed_tokens.weight)
        self._position_table(decoder.embed_positions.weight)
        decoder.final_layer_norm.weight.fill_(self._gains.output)
        heads = [
            self._layer_0(),
            self._layer_1(),
            self._layer_2(),
            self._layer_3(),
            self._layer_4(),
            self._layer_5(),
        ]
        size = self._architecture.head_size
        for layer, built in zip(decoder.layers, heads, strict=False):
            attention = layer.self_attn
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
                projection.weight.zero_()
                projection.bias.zero_()
            for number, head in enumerate(built):
                rows = slice(number * size, (number + 1) * size)
                attention.q_proj.weight[rows] = head.query * math.sqrt(size)
                attention.q_proj.bias[rows] = head.query_bias * math.sqrt(size)
                attention.k_proj.weight[rows] = head.key
                attention.v_proj.weight[rows] = head.value
                attention.out_proj.weight[:, rows] = head.output.T
            for linear, std in ((layer.fc1, 0.02), (layer.fc2, 0.02 * self._gains.mlp)):
                linear.weight.normal_(0.0, std, generator=self._generator)
                linear.bias.zero_()

    def _embeddings(self, table: torch.Tensor) -> None:
        table.normal_(0.0, 1.0, generator=self._generator)
        codes = table[:, : len(self._identity)]
        codes = codes / codes.norm(dim=1, keepdim=True)
        rest = 0.01 * (table - table @ self._identity.T @ self._identity)
        table.copy_(codes @ self._identity + rest)
        wording = sorted(self._template)
        table[wording] *= self._gains.template
        table[wording] += math.sqrt(1 - self._gains.template**2) * self._wording_axis
        table[self._open_quote] = self._quote_axis
        table[self._close_quote] = self._end_axis
        table[self._start] = self._start_axis

    def _position_table(self, table: torch.Tensor) -> None:
        table.zero_()
        table[:, : 2 * len(self._frequencies)] = self._position_codes(len(table) - POSITION_OFFSET)

    def _position_codes(self, positions: int) -> torch.Tensor:
        """The rows of OPT's position table for so many positions."""
        phase = torch.arange(positions + POSITION_OFFSET)[:, None] * self._frequencies
        return self._gains.position * torch.cat([torch.cos(phase), torch.sin(phase)], dim=1)

    def _head(self) -> _Head:
        return _Head(self._architecture.head_size, self._width)

    def _look_back(self, head: _Head, distance: int, strength: float, frequencies: Sequence[int] | None = None) -> None:
        """Attend `distance` positions back, by all frequencies or only some, 0 the fastest."""
        rows = self._position_rows(frequencies)
        head.match(strength * self._turned(distance, rows), strength * self._positions[rows])

    def _position_rows(self, frequencies: Sequence[int] | None = None) -> list[int]:
        """The position dimensions of some frequencies, of all by default: cosines, then sines."""
        half = len(self._frequencies)
        chosen = range(half) if frequencies is None else frequencies
        return [*chosen, *(half + index for index in chosen)]

    def _turned(self, distance: float, rows: list[int], axes: torch.Tensor | None = None) -> torch.Tensor:
        """Positions coded along `axes`, at `rows` of the code, as they are `distance` positions back."""
        axes = self._positions[rows] if axes is None else axes
        cosines, sines = axes.chunk(2)
        angles = distance * self._frequencies[rows[: len(cosines)]][:, None]
        back = angles.cos() * cosines + angles.sin() * sines, angles.cos() * sines - angles.sin() * cosines
        return torch.cat(back)

    def _elsewhere(self) -> torch.Tensor:
        """The position dimensions, but 0 at the start of the text, where heads look that have nothing to say."""
        return self._positions - self._position_codes(1)[POSITION_OFFSET][:, None] * self._start_axis

    def _code(self, size: int, seed_axis: int) -> torch.Tensor:
        """`size` orthonormal directions of token identity; equal for equal `seed_axis`."""
        generator = torch.Generator().manual_seed(1000 + seed_axis)
        return orthogonal(len(self._identity), generator)[:size] @ self._identity

    def _layer_0(self) -> list[_Head]:
        gains = self._gains
        previous, user, earlier, history = (self._head() for _ in range(4))
        slots = (self._history_type + self._candidate_type)[None]
        self._look_back(previous, 1, 1.1)
        before = torch.cat([self._quote_axis[None], self._previous_code])
        previous.copy(before, torch.cat([self._begin_axis[None], self._items[1:]]), gains.predecessor / 13)
        user.prefer(self._user_type, 3.0)
        user.match(0.6 * slots, 0.6 * self._start_axis[None])
        coordinates = torch.cat([self._user, self._weight_axis[None]])
        user.copy(coordinates, coordinates, gains.user_copy / 7)
        quotes = (self._quote_axis + self._end_axis)[None]
        history.match(gains.history / 13 * quotes, self._history_type[None])
        history.prefer(self._start_axis, gains.history_sink)
        history.copy(self._alike, self._alike_history, gains.user_copy / 7)
        self._look_back(earlier, 2, 1.1)
        earlier.copy(self._quote_axis[None], self._second_axis[None], gains.predecessor / 13)
        return [previous, user, earlier, history]

    def _layer_1(self) -> list[_Head]:
        gains = self._gains
        parts, half = self._identity_parts(), len(self._frequencies)
        slots = (self._history_type + self._candidate_type)[None]
        first = [self._head() for _ in parts]
        for head, part in zip(first, parts, strict=True):
            self._look_back(head, 1, gains.recency, range(half // 2, half))
            head.match(gains.flag * slots, self._begin_axis[None])
            head.prefer(self._start_axis, gains.first_sink)
            head.match(-gains.first_slots * slots, self._start_axis[None])
            head.copy(part, part, gains.first_token / 6)
        return [*first, self._second(), self._note()]

    def _second(self) -> _Head:
        """Slots fetch the second token of their title, quotation marks nothing, all others the first of theirs."""
        gains, head = self._gains, self._head()
        half = len(self._frequencies)
        slots = (self._history_type + self._candidate_type)[None]
        self._look_back(head, 1, gains.recency, range(half // 2, half))
        head.match(gains.flag * slots, self._second_axis[None])
        head.prefer(self._begin_axis, gains.begin)
        head.match(-gains.begin_slots * slots, self._begin_axis[None])
        head.match(gains.begin_quotes * (self._quote_axis + self._end_axis)[None], self._start_axis[None])
        head.copy(self._short_code(), self._user, gains.second_token / 6)
        return head

    def _note(self) -> _Head:
        """Slots weigh the end of their title, which knows the user, against themselves, by their logit."""
        gains, head = self._gains, self._head()
        user, item = self._matched()
        scale = math.sqrt(0.16 * gains.note)
        head.match(scale * item, scale * user)
        head.match(scale * self._alike, scale * self._alike_history)
        head.match(gains.popularity * self._popularity_axis[None], gains.note * self._end_axis[None])
        self._look_back(head, 1, gains.note_recency, (5, 8, 11))
        ends = 0.24**2 * (self._end_axis - self._start_axis) + gains.note_sink**2 * self._candidate_type
        head.match(self._candidate_type[None], ends[None])
        head.copy(self._end_axis[None], self._note_axis[None], gains.note_write / 6)
        return head

    def _matching(self, strength: float, sign: float) -> _Head:
        """A head that attends to candidates by sign * logit."""
        gains, head = self._gains, self._head()
        user, item = self._matched()
        scale = math.sqrt(0.16 * strength)
        head.match(sign * scale * user, scale * item)
        head.match(sign * scale * self._alike_history, scale * self._alike)
        head.prefer(self._popularity_axis, sign * gains.popularity * strength)
        head.match(sign * gains.series_weight * self._weight_axis[None], strength * self._series_axis[None])
        return head

    def _matched(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The directions of a user's and an item's coordinates."""
        axes = self._interface.user_basis, self._interface.item_basis
        user, item = (basis / basis.norm(dim=1, keepdim=True) for basis in axes)
        return user, item

    def _at_the_end(self, head: _Head) -> None:
        """Candidates are attended from the end of a prompt, the begin of the text from elsewhere."""
        head.match(self._gains.gate * self._quote_axis[None], self._gains.gate * self._candidate_type[None])
        head.prefer(self._start_axis, self._gains.sink)

    def _identity_parts(self) -> list[torch.Tensor]:
        """Token identity, a head's worth each."""
        return list(self._own_code.chunk(math.ceil(len(self._own_code) / self._architecture.head_size)))

    def _layer_2(self) -> list[_Head]:
        return [self._series(), self._path(1.0), self._path(-1.0), self._locate()]

    def _series(self) -> _Head:
        """Candidates weigh titles of the history that begin like theirs against themselves."""
        gains, head = self._gains, self._head()
        half = head.size // 2
        first, second = self._identity_parts()[0][:half], self._user[: half - 7].clone()
        # The end of a title lies along one dimension, other second tokens along all of them.
        second[0] *= math.sqrt(len(second) / len(self._user))
        head.match(gains.series * first, gains.series * first)
        head.match(gains.series * second, gains.series * second)
        head.match(gains.series_history * self._candidate_type[None], self._history_type[None])
        head.prefer(self._start_axis, 0.5)
        head.copy(self._history_type[None], self._series_axis[None], gains.series_write / 6)
        return head

    def _path(self, sign: float) -> _Head:
        """Tokens that began titles take up or push away what followed, by the logits noted."""
        gains, head = self._gains, self._head()
        first = self._identity_parts()[0]
        head.match(gains.path_own * first, gains.path_own * first)
        head.prefer(self._note_axis, sign * gains.path_score)
        head.prefer(self._candidate_type, gains.path_candidate)
        head.match(1.1 * self._quote_axis[None], 1.1 * self._start_axis[None])
        head.copy(self._user, self._short_code(), sign * gains.path_write / 9)
        return head

    def _locate(self) -> _Head:
        """Tokens of a title take up where candidates stand that begin as it does, by the logits noted.

        A mean of places, weighed by logits, is nearest to the likeliest.
        """
        gains, head = self._gains, self._head()
        code = self._short_code()[1:]
        head.match(gains.locate_match * self._user[1:], gains.locate_match * code)
        head.prefer(self._note_axis, gains.locate_score)
        head.prefer(self._candidate_type, gains.locate_candidate)
        head.match(1.1 * self._quote_axis[None], 1.1 * self._start_axis[None])
        rows = self._position_rows(_PLACE_FREQUENCIES)
        head.copy(self._elsewhere()[rows], self._alike_history[: len(rows)], gains.locate_write)
        return head

    def _follow(self) -> _Head:
        """Tokens find what followed them before the places located, and more of it the nearer."""
        gains, head = self._gains, self._head()
        rows = self._position_rows(_PLACE_FREQUENCIES)
        located = self._turned(_PLACE_DISTANCE, rows, self._alike_history[: len(rows)])
        head.match(gains.follow_near * located, gains.follow_near * self._elsewhere()[rows])
        size = head.size - len(rows) - 2
        head.match(gains.follow_match * self._previous_code[:size], gains.follow_match * self._items[1 : size + 1])
        head.match(gains.follow_quote * self._quote_axis[None], self._start_axis[None])
        head.prefer(self._start_axis, gains.follow_sink)
        own = self._own_code[: head.size]
        head.copy(own, own, gains.follow_write / 9)
        return head

    def _short_code(self) -> torch.Tensor:
        """What user dimensions keep of another token's identity: of slots' second tokens, which may be the title's end,
        and of the first tokens of titles, which never are."""
        return torch.cat([self._end_axis[None], self._code(len(self._user) - 1, 2)])

    def _layer_3(self) -> list[_Head]:
        heads = []
        for sign in (1.0, -1.0):
            for part in self._identity_parts():
                head = self._matching(self._gains.match, sign)
                self._at_the_end(head)
                head.copy(part, part, sign * self._gains.write / 9)
                heads.append(head)
        return heads

    def _layer_4(self) -> list[_Head]:
        gains = self._gains
        return [
            self._correction(sign, part, gains.correction_match, gains.correction_write)
            for sign in (1.0, -1.0)
            for part in self._identity_parts()
        ]

    def _layer_5(self) -> list[_Head]:
        gains = self._gains
        corrections = [
            self._correction(1.0, part, gains.second_match, gains.second_write) for part in self._identity_parts()
        ]
        return [*corrections, self._repeat(), self._follow()]

    def _correction(self, sign: float, part: torch.Tensor, match: float, write: float) -> _Head:
        """The end takes back from every candidate what it has of the candidate's code, or lacks of it."""
        head = self._head()
        scale = math.sqrt(0.16 * match)
        head.match(sign * scale * part, scale * part)
        self._at_the_end(head)
        head.copy(part, part, -sign * write / 9)
        return head

    def _repeat(self) -> _Head:
        """Tokens find what followed them before."""
        head = self._head()
        head.match(0.8 * self._previous_code, 0.8 * self._items[1:])
        head.prefer(self._start_axis, 0.55)
        own = self._own_code[: head.size]
        head.copy(own, own, self._gains.induction / 13)
        return head


@torch.no_grad()
def wake(model: Any, seed: int, std: float = 0.02) -> None:
    """Let attention dimensions that do nothing learn, without a change to what the model computes.

    Where queries and keys are zero, or values and outputs, neither gets a gradient. One side of each becomes random;
    the other is still zero, so nothing is said yet.

    Args:
        model: an OPT.
        seed: of the random rows.
        std: of their entries.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in model.model.decoder.layers:
        attention = layer.self_attn
        keys, outputs = attention.k_proj.weight, attention.out_proj.weight.T
        for asked, answered in ((attention.q_proj.weight, keys), (attention.v_proj.weight, outputs)):
            asleep = ~asked.any(dim=1) & ~answered.any(dim=1)
            asked[asleep] = std * torch.randn(int(asleep.sum()), asked.shape[1], generator=generator)
