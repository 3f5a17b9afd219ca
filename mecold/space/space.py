"""The item space: channels by name, neighbour lists, counts. Everything adaptation and search need of the items.

score(user, item) = <user vector, item vector> + sum over the support of trust * neighbour list
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding

from mecold.data.rows import Rows, appended
from mecold.lazy import cached_property
from mecold.math.products import beside, product
from mecold.space.basis import Basis
from mecold.space.channel import Channel, Channels, side_by_side, spans_of
from mecold.space.channels import MAKERS
from mecold.space.lists import Lists
from mecold.space.lookalikes import Lookalikes
from mecold.space.making import Newcomers, of_newcomers


@dataclass(frozen=True)
class UserVectors(Rows):
    """What users are searched with: the adapted parameters of their heads.

    Args:
        vector: the user vectors, channel after channel as in an item vector.
        rows: rows of the support.
        trust: how much the neighbour list of each support row counts; 0 for padding.
    """

    vector: Float[Tensor, "users dim"]
    rows: Int[Tensor, "users shots"]
    trust: Float[Tensor, "users shots"]


@dataclass(frozen=True)
class ItemSpace:
    """Items as channels.

    Args:
        channels: by name.
        lists: neighbour lists.
        counts: users per item; 0 for a new item.
        new: True for items that nobody has touched, or that are treated so: what they have is guessed from their texts.
    """

    channels: Mapping[str, Channel]
    lists: Lists
    counts: Float[Tensor, " items"]
    new: Bool[Tensor, " items"]

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, name: str) -> Channel:
        return self.channels[name]

    @cached_property
    def spans(self) -> dict[str, slice]:
        """Where each channel lies in a vector."""
        return spans_of(self.channels)

    @cached_property
    def dim(self) -> int:
        """Width of an item vector."""
        return sum(channel.width for channel in self.channels.values())

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.counts.device

    @cached_property
    def text(self) -> Channel:
        """The channel that is made of the items' texts alone."""
        return next(channel for channel in self.channels.values() if channel.traits.textual)

    def text_of(self, rows: Int[Tensor, "*any"]) -> Float[Tensor, "*any width"]:
        """Text vectors of some rows, as the basis has them; the scale that a new item's text has is on its item side alone."""
        text = self.text
        return (text.item if text.support is None else text.support)[rows]

    @cached_property
    def popularity(self) -> Float[Tensor, " items"]:
        """Standardised log count, or its guess for a new item."""
        return self["popularity"].item[:, 0]

    def scores(self, users: UserVectors) -> Float[Tensor, "users items"]:
        """Score of every item."""
        # no copy of all channels side by side: they are read where they are
        total = beside(users.vector, [channel.item for channel in self.channels.values()])
        return self.lists.add_to(total, users.rows, users.trust)

    def scores_among(self, rows: Int[Tensor, " some"], users: UserVectors) -> Float[Tensor, "users some"]:
        """Scores of some rows, which may repeat."""
        return product(users.vector, self.vectors(rows)) + self.lists.among(rows, users.rows, users.trust)

    def scores_of(self, rows: Int[Tensor, "users wanted"], users: UserVectors) -> Float[Tensor, "users wanted"]:
        """Scores of a few rows of each user's own."""
        return self.products_of(rows, users) + self.lists.of(rows, users.rows, users.trust)

    def products_of(self, rows: Int[Tensor, "users wanted"], users: UserVectors) -> Float[Tensor, "users wanted"]:
        """The same without what the lists say."""
        total = users.vector.new_zeros(rows.shape)
        for name, channel in self.channels.items():
            total = total + torch.bmm(embedding(rows, channel.item), users.vector[:, self.spans[name], None])[..., 0]
        return total

    def vectors(self, rows: Int[Tensor, "*any"]) -> Float[Tensor, "*any dim"]:
        """Item vectors of some rows."""
        return side_by_side({name: embedding(rows, channel.item) for name, channel in self.channels.items()})

    def take(self, rows: slice | Tensor) -> "ItemSpace":
        """These rows; their lists may name any row."""
        channels = {name: channel.take(rows) for name, channel in self.channels.items()}
        return ItemSpace(channels, self.lists.take(rows), self.counts[rows], self.new[rows])

    def to(self, device: torch.device) -> "ItemSpace":
        """The same space on another device."""
        channels = {
            name: replace(channel.to(device), clock=channel.clock.to(device) if channel.clock else None)
            for name, channel in self.channels.items()
        }
        return ItemSpace(channels, self.lists.to(device), self.counts.to(device), self.new.to(device))

    def followed_by(self, other: "ItemSpace") -> "ItemSpace":
        """These items, then the other's; in time of the other's alone (see `data.rows.appended`)."""
        return ItemSpace(
            {name: channel.followed_by(other[name]) for name, channel in self.channels.items()},
            Lists(appended(self.lists.rows, other.lists.rows), appended(self.lists.values, other.lists.values)),
            appended(self.counts, other.counts),
            appended(self.new, other.new),
        )


def with_newcomers(
    channels: Channels,
    lists: Lists,
    counts: Float[Tensor, " items"],
    basis: Basis,
    dropped: Bool[Tensor, " items"] | None = None,
    alike: Lookalikes | None = None,
) -> ItemSpace:
    """An item space in which items that nobody has touched have what their lookalikes have.

    Args:
        channels: as a log shows them.
        lists: neighbour lists.
        counts: users per item; an item with none is new.
        basis: the scales that are fitted once.
        dropped: items to treat as new whatever their count.
        alike: lookalikes of the new items in row order, where they are known already.
    """
    new = (counts == 0) if dropped is None else dropped | (counts == 0)
    counts = torch.where(new, 0.0, counts)
    if new.any():
        rows = new.nonzero()[:, 0]
        text = next(channel.item for channel in channels.values() if channel.traits.textual)
        found = of_newcomers(
            MAKERS, Newcomers(text[rows], alike or lookalikes_of(text, new), counts, channels, basis, {})
        )
        channels = {name: _put(channel, rows, found[name]) for name, channel in channels.items()}
    return ItemSpace(channels, lists.without(new), counts, new)


def lookalikes_of(text: Float[Tensor, "items rank"], new: Bool[Tensor, " items"]) -> Lookalikes:
    """Lookalikes of the new items, in row order, among the others."""
    return Lookalikes.find(text[new], text, ~new & (text != 0).any(1))


def newcomers(
    space: ItemSpace, usable: Bool[Tensor, " items"], text: Float[Tensor, "some rank"], basis: Basis
) -> ItemSpace:
    """New items beside a space: text, what their lookalikes among its usable items have, and empty neighbour lists."""
    support, norm = space.text.support, space.text.norm
    assert support is not None and norm is not None
    alike = Lookalikes.find(text, support, usable & (norm > 0))
    rows, places = torch.unique(alike.rows, return_inverse=True)  # few: nothing else of the catalogue is looked at
    there, alike = space.take(rows), replace(alike, rows=places)
    counts = torch.where(usable[rows], there.counts, 0.0)
    channels = of_newcomers(MAKERS, Newcomers(text, alike, counts, there.channels, basis, {}))
    lists = Lists.none(len(text), space.lists.rows.shape[1], text)
    return ItemSpace(channels, lists, text.new_zeros(len(text)), text.new_ones(len(text), dtype=torch.bool))


def with_text(old: ItemSpace, fresh: ItemSpace) -> ItemSpace:
    """Items whose texts changed: what their interactions say stays, what was guessed from the text is new.

    Args:
        old: the items as they were.
        fresh: the same items as if nobody had touched them.
    """
    at, channels = old.new.nonzero()[:, 0], {}
    for name, channel in old.channels.items():
        # the text of a known item is the same on both sides: the gain of a new one is not for it
        now = _both(fresh[name].support, channel) if channel.traits.textual else channel
        channels[name] = _put(now, at, fresh[name].take(at))
    return ItemSpace(channels, old.lists, old.counts, old.new)


def _both(tensor: Tensor | None, like: Channel) -> Channel:
    assert tensor is not None
    return Channel.of(like.name, like.traits, tensor, tensor, like.clock)


def _put(channel: Channel, rows: Tensor, found: Channel) -> Channel:
    """The channel with some rows replaced; itself, its memory shared, where they are the same already."""
    if channel.shared and found.shared and torch.equal(channel.item[rows], found.item):
        return channel
    item = channel.item.index_copy(0, rows, found.item)
    if channel.support is None or found.support is None:
        return replace(channel, item=item)
    same = torch.equal(channel.support[rows], found.support)
    support = channel.support if same else channel.support.index_copy(0, rows, found.support)
    norm = channel.norm
    if norm is not None and found.norm is not None and not same:
        norm = norm.index_copy(0, rows, found.norm)
    return replace(channel, item=item, support=support, norm=norm)
