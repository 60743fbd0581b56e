"""All strengths of the circuit, by layer and head."""

from __future__ import annotations

from models.config import Config
from training.pretraining.circuit.beginnings import LocateGains, PathGains, SeriesGains
from training.pretraining.circuit.context import ContextGains
from training.pretraining.circuit.copying import FollowGains, RepeatGains
from training.pretraining.circuit.logits import CorrectionGains, NoteGains, RankingGains
from training.pretraining.circuit.titles import TitleGains


class Gains(Config):
    """Strengths of the circuit, tuned so that the untrained model ranks well. The package's docstring says by what.

    Attributes:
        wording: share of identity in the embeddings of tokens that all prompts share: what is said again in every
            prompt tells nothing apart.
        position: length of a cosine-and-sine pair of the position code; a token's embedding has length 1.
        context: layer 0, all heads.
        titles: layer 1, the heads that fetch first and second tokens.
        note: layer 1, the head that notes logits.
        series: layer 2, the head that finds series.
        path: layer 2, the heads that take up second tokens.
        locate: layer 2, the head that locates titles.
        ranking: layer 3, all heads.
        correction: layer 4, all heads.
        second_correction: layer 5, the heads that correct once more.
        repeat: layer 5, the head that repeats.
        follow: layer 5, the head that reads on where titles were located.
        output: the final layer norm's weight, by which logits are spread.
        feed_forward: of the feed-forward layers' outputs, in units of transformers' own initialisation. Small: nothing
            is constructed there, and noise must not drown what is.
    """

    wording: float = 0.25
    position: float = 0.27
    context: ContextGains = ContextGains()
    titles: TitleGains = TitleGains()
    note: NoteGains = NoteGains()
    series: SeriesGains = SeriesGains()
    path: PathGains = PathGains()
    locate: LocateGains = LocateGains()
    ranking: RankingGains = RankingGains()
    correction: CorrectionGains = CorrectionGains()
    second_correction: CorrectionGains = CorrectionGains(match=0.75, write=0.35)
    repeat: RepeatGains = RepeatGains()
    follow: FollowGains = FollowGains()
    output: float = 0.65
    feed_forward: float = 0.05
