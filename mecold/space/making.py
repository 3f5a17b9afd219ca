"""How channels are made: out of what, for items that have been touched; and what an untouched item gets.

A channel lives in one file of `channels/`, as a `Maker`; `channels/__init__.py` lists them in order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from mecold.lazy import cached_property
from mecold.space.basis import Basis
from mecold.space.channel import Channel, Channels, Traits
from mecold.space.clock import Clock
from mecold.space.lookalikes import Lookalikes
from mecold.space.settings import FactorConfig
from mecold.space.statistics import Statistics


class Pair(NamedTuple):
    """Both sides of factors, neither of them missing."""

    support: Float[Tensor, "items rank"]
    item: Float[Tensor, "items rank"]


class Sides(NamedTuple):
    """Both sides of a channel: what items say of their user, and what they are found by. One tensor may be both."""

    support: Float[Tensor, "items width"] | None
    item: Float[Tensor, "items width"]


@dataclass(frozen=True)
class Material:
    """What channels are made of.

    Args:
        stats: statistics of the log.
        counts: users per item, scaled to all users where `stats` lack some.
        text: half-whitened texts, from `Basis.text`.
        basis: the scales that are fitted once.
        config: settings.
        factored: rows of the items that have been touched, in order: they get factors.
        edges: of the bins of time; empty without one.
        persistence: of trends, over the whole log.
        draws: the start of low-rank iterations.
        given: a host's factors.
        made: the channels before this one.
        group_sizes: number of groups of each attribute of users.
    """

    stats: Statistics
    counts: Float[Tensor, " items"]
    text: Float[Tensor, "items rank"]
    basis: Basis
    config: FactorConfig
    factored: Int64[ndarray, " some"]
    edges: Float64[ndarray, " edges"]
    persistence: float
    draws: torch.Generator
    given: Sides | None
    made: dict[str, Channel]
    group_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Newcomers:
    """Items that nobody has touched, and what is known of them.

    Args:
        text: their half-whitened texts.
        alike: their lookalikes.
        counts: users per item of the space; 0 for items that must not stand in.
        channels: of the space.
        basis: the scales that are fitted once.
        made: their sides in the channels before this one.
    """

    text: Float[Tensor, "some rank"]
    alike: Lookalikes
    counts: Float[Tensor, " items"]
    channels: Channels
    basis: Basis
    made: dict[str, Sides]

    def gain(self, name: str) -> float:
        """How much the item side of a channel counts for new items."""
        return self.basis.new_gain.get(name, 1.0)

    @cached_property
    def root(self) -> Float[Tensor, "items one"]:
        """Root of each item's count."""
        return (self.counts + 1).sqrt()[:, None]

    @cached_property
    def _means(self) -> Float[Tensor, "some three"]:
        popularity = self.basis.popularity(self.counts)[:, None]
        return self.alike.mean(torch.cat([torch.ones_like(self.root), self.root, popularity], 1), self.counts)

    @property
    def known(self) -> Bool[Tensor, "some one"]:
        """True for items that have a lookalike which anybody has touched."""
        return self._means[:, :1] > 0

    @property
    def size(self) -> Float[Tensor, "some one"]:
        """Mean root of the lookalikes' counts."""
        return self._means[:, 1:2]

    @property
    def popularity(self) -> Float[Tensor, "some one"]:
        """Mean popularity of the lookalikes."""
        return self._means[:, 2:]


def of_lookalikes(channel: Channel, new: Newcomers) -> Sides:
    """The mean over the lookalikes that have the channel.

    An item side that grows with the root of a count is averaged per root, so that directions count and not fame, and
    scaled back.
    """
    counts = new.counts * channel.known()
    item = channel.item / new.root if channel.traits.grows else channel.item
    found = new.alike.mean(item, counts) * (new.size if channel.traits.grows else 1.0)
    return Sides(None if channel.support is None else new.alike.mean(channel.support, counts), found)


@dataclass(frozen=True)
class Maker:
    """How one channel is made.

    Args:
        name: the channel's name.
        traits: what it is like.
        sides: its sides for all items; None leaves the channel out.
        newcomer: its sides for items that nobody has touched.
        clock: how times read it.
        gained: whether a new item's item side is multiplied by the channel's gain; else `newcomer` looks after that.
        counted: whether its sides are made of counts alone, so that they can be made anew at once.
    """

    name: str
    traits: Traits
    sides: Callable[[Material], Sides | None]
    newcomer: Callable[[Channel, Newcomers], Sides] = of_lookalikes
    clock: Callable[[Material], Clock | None] = lambda _: None
    gained: bool = True
    counted: bool = False


def made_of(makers: Mapping[str, Maker], material: Material) -> dict[str, Channel]:
    """All channels, in order."""
    for maker in makers.values():
        if (sides := maker.sides(material)) is not None and sides.item.shape[1]:
            material.made[maker.name] = Channel.of(maker.name, maker.traits, *sides, maker.clock(material))
    return material.made


def of_newcomers(makers: Mapping[str, Maker], new: Newcomers) -> dict[str, Channel]:
    """All channels of new items, the item sides times their calibrated gains."""
    found = {}
    for name, channel in new.channels.items():
        sides = new.made[name] = makers[name].newcomer(channel, new)
        gain = new.gain(name) if makers[name].gained else 1.0
        item = sides.item if gain == 1.0 else sides.item * gain
        found[name] = Channel.of(name, channel.traits, sides.support, item, channel.clock)
    return found
