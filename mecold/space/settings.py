"""Settings of the item space, one frozen dataclass; a misspelt one is a TypeError."""

from dataclasses import dataclass

from mecold.values import number, whole


@dataclass(frozen=True)
class FactorConfig:
    """How collaborative factors are fitted.

    Args:
        symmetric_rank: width of the EASE channel; 0 leaves it out.
        directed_rank: width of the directed channel; 0 leaves it out.
        l2: ridge penalty of both.
        past: how many items of a prefix are read, newest first.
        fade: an item `a` steps older weighs exp(-a / fade).
        window: how many following items a prefix predicts.
        early: a prefix of n items counts for n^-early in the directed channel: short ones are what cold users have.
        neighbours: length of the neighbour lists; 0 leaves them out.
        trend_bins: bins of time of the trend channel, where the log has timestamps; 0 leaves it out.
        exact_items: up to this many items, what all of them have in common is taken as it is.
        gram_rank: with more items, directions in which what they have in common is taken as it is; beyond them each item
            stands for itself.
    """

    symmetric_rank: int = 160
    directed_rank: int = 160
    l2: float = 500.0
    past: int = 20
    fade: float = 2.0
    window: int = 10
    early: float = 0.25
    neighbours: int = 64
    trend_bins: int = 16
    exact_items: int = 4096
    gram_rank: int = 256

    def __post_init__(self) -> None:
        for name, least in (
            ("symmetric_rank", 0), ("directed_rank", 0), ("past", 1), ("window", 1), ("neighbours", 0), ("trend_bins", 0),
            ("exact_items", 0), ("gram_rank", 1),
        ):  # fmt: skip
            whole(getattr(self, name), f"FactorConfig.{name}", least)
        for name, low in (("l2", 1e-6), ("fade", 1e-6), ("early", 0.0)):
            number(getattr(self, name), f"FactorConfig.{name}", low, 1e12)
