"""A channel: one kind of thing that is known of items, as two sides and a few traits. The value the model hangs on.

The *support side* says what an item tells about a user who has it; the *item side* is what the item is found by. Both may
be one tensor. A channel is addressed by its name, never by its place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mecold.data.rows import Rows, appended
from mecold.space.clock import Clock

LISTS = "lists"
"""The name under which a head keeps its numbers for the neighbour lists, which are no vectors and so no channel."""

Reads: TypeAlias = Literal["items", "time", "groups", "nothing", "bonus"]


@dataclass(frozen=True)
class Traits:
    """What a channel is like, for heads and for items that nobody has touched.

    Args:
        reads: what a user's vector in this channel is made of: the support's `items`; the `time` of the newest one; the
            `groups` that the user belongs to; `nothing`, so that it is a number learned by shots; or a `bonus` by shots,
            which calibration alone sets.
        start: logarithm of the channel's scale before training.
        fades: an older item of the support says less.
        tied: the item sides of the support's items are read too: they find what the same items lead to.
        grows: an item's item side grows with the root of its count.
        agrees: whether a support's items agree in it tells how far to trust the channels.
        scaled_as: name of the channel whose learned numbers this one shares; "" has its own.
        given: its sides were handed over and stay as they are, whatever the log says.
        textual: it is made of the items' texts alone, so that a new text changes it whoever has touched the item.
    """

    reads: Reads = "items"
    start: float = 0.0
    fades: bool = True
    tied: bool = False
    grows: bool = False
    agrees: bool = False
    scaled_as: str = ""
    textual: bool = False
    given: bool = False


@dataclass(frozen=True)
class Channel(Rows):
    """One channel of an item space.

    Args:
        name: its name.
        traits: what it is like.
        support: what an item says about a user who has it; None where nothing of it is read.
        item: what the item is found by; may be the same tensor as `support`.
        norm: length of each item's support side, where agreement in it is looked at.
        clock: of a channel that reads times.
    """

    name: str
    traits: Traits
    support: Float[Tensor, "items width"] | None
    item: Float[Tensor, "items width"]
    norm: Float[Tensor, " items"] | None = None
    clock: Clock | None = None

    @classmethod
    def of(
        cls, name: str, traits: Traits, support: Tensor | None, item: Tensor, clock: Clock | None = None
    ) -> "Channel":
        """A channel from its sides."""
        norm = support.norm(dim=1) if traits.agrees and support is not None else None
        return cls(name, traits, support, item, norm, clock)

    @property
    def width(self) -> int:
        """Numbers per item."""
        return self.item.shape[1]

    @property
    def scale_name(self) -> str:
        """Name of the numbers that a head keeps for this channel."""
        return self.traits.scaled_as or self.name

    @property
    def shared(self) -> bool:
        """True where both sides are one tensor."""
        return self.support is self.item

    def map(self, change: Callable[[Tensor], Tensor]) -> "Channel":
        """The same channel with every tensor changed; what was shared stays so."""
        if not self.shared:
            return super().map(change)
        both = change(self.item)
        return replace(self, support=both, item=both, norm=None if self.norm is None else change(self.norm))

    def followed_by(self, other: "Channel") -> "Channel":
        """These items, then the other's; one tensor stays both sides where it is in both."""
        item = appended(self.item, other.item)
        support = self.support
        if support is not None and other.support is not None:
            support = item if self.shared and other.shared else appended(support, other.support)
        norm = None if self.norm is None or other.norm is None else appended(self.norm, other.norm)
        return replace(self, item=item, support=support, norm=norm)

    def known(self) -> Bool[Tensor, " items"]:
        """True for items that have anything in this channel."""
        found = (self.item != 0).any(1)
        return found if self.support is None or self.shared else found | (self.support != 0).any(1)


Channels: TypeAlias = Mapping[str, Channel]
"""Channels by name, in the order in which they stand in an item vector."""


def spans_of(channels: Channels) -> dict[str, slice]:
    """Where each channel lies in an item vector; the one place that turns names into places."""
    found, end = {}, 0
    for name, channel in channels.items():
        found[name] = slice(end, end + channel.width)
        end += channel.width
    return found


def side_by_side(parts: Mapping[str, Tensor]) -> Tensor:
    """Vectors by channel as one."""
    return torch.cat(list(parts.values()), dim=-1)
