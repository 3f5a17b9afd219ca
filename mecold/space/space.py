"""Item tower: text vectors, factors and counts become item vectors; and the space they form.

An item vector is the concatenation of channels: factor channels first (symmetric, directed, or a host's), then text,
newness and popularity. Each channel has a support side (what an item says about its user) and an item side (what the item
is found by); newness and popularity have an item side only. An item that nobody has touched lives on its text: of its
lookalikes, the items with texts like its own, it has the mean factors and the mean popularity. The head reads factors
with a fade, for what users want next; what new items they will like does not fade (bench/LEDGER.md), and so the unfaded text
channel ends in the leading columns of the first factors: on the support side of all items, on the item side of new ones
only. Beside the vectors stand the neighbour lists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

import mecold.space.channels.trend as trend
from mecold.space.statistics import FactorPair
from mecold.space.lookalikes import Lookalikes
from mecold.space.lists import Neighbours

NEW = "new"  # the channel of newness: 1 for an item that nobody has touched
LEAST_VARIANCE = 1e-6  # of a direction of the texts, as a share of the largest
LEAST_SPREAD = 0.1  # of log counts: where all items are equally popular, chance differences stay small
ALIKE = 64  # most columns of the first factors that the text channel repeats for new items; chosen on EASE's
FITTED = ("symmetric", "directed")  # channels whose item side grows with an item's count


@dataclass(frozen=True)
class Layout:
    """Channels in order and their widths; the last three are always text, newness and popularity.

    Args:
        names: of the channels.
        widths: of the channels.
        alike: how many columns at the end of the text channel hold what a new item has of its lookalikes.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    alike: int

    @classmethod
    def of(cls, factors: Mapping[str, int], text: int) -> "Layout":
        """The channels of a space: the factors' by name with their widths, and a text channel for texts of some width."""
        first = next(iter(factors), trend.CHANNEL)
        alike = 0 if first == trend.CHANNEL else min(ALIKE, factors[first])
        return cls((*factors, "text", NEW, "popularity"), (*factors.values(), text + alike, 1, 1), alike)

    @property
    def dim(self) -> int:
        """Width of an item vector."""
        return sum(self.widths)

    @property
    def slices(self) -> list[slice]:
        """Where each channel lies in a vector."""
        return _side_by_side(self.widths)

    @property
    def factors(self) -> dict[str, int]:
        """Names and widths of the channels before the text."""
        return dict(zip(self.names[:-3], self.widths[:-3], strict=True))

    @property
    def parts(self) -> dict[str, slice]:
        """The channels by name and where they lie, the two parts of the text channel apart."""
        *factors, text, newness, popularity = self.widths
        places = _side_by_side((*factors, text - self.alike, self.alike, newness, popularity))
        return dict(zip((*self.names[:-2], "alike", *self.names[-2:]), places, strict=True))

    def expand(self, per_channel: Float[Tensor, "*any channels"]) -> Float[Tensor, "*any dim"]:
        """A value per channel, repeated over the channel's dimensions."""
        widths = torch.tensor(self.widths, device=per_channel.device)
        return torch.repeat_interleave(per_channel, widths, dim=-1, output_size=self.dim)


def _side_by_side(widths: Sequence[int]) -> list[slice]:
    ends = list(accumulate(widths))
    return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]


@dataclass(frozen=True)
class Query:
    """What users are searched with; `ItemSpace.scores` scores the catalogue.

    Args:
        vector: the adapted heads.
        rows: rows of the support.
        trust: how much the neighbours of each support row count; 0 for padding.
    """

    vector: Float[Tensor, "users dim"]
    rows: Int[Tensor, "users shots"]
    trust: Float[Tensor, "users shots"]

    def __len__(self) -> int:
        return len(self.vector)

    def __getitem__(self, users: slice) -> "Query":
        return Query(self.vector[users], self.rows[users], self.trust[users])


@dataclass(frozen=True)
class ItemSpace:
    """Everything adaptation and search need of the items.

    Args:
        support: what an item says about a user who has it.
        item: what the item is found by.
        near: neighbour lists.
        popularity: standardised log count, or its guess from the text; the last column of `item`.
        cold: True for items that nobody has touched: factors and popularity are guessed from the text.
    """

    support: Float[Tensor, "items dim"]
    item: Float[Tensor, "items dim"]
    near: Neighbours
    popularity: Float[Tensor, " items"]
    cold: Bool[Tensor, " items"]

    def scores(self, query: Query) -> Float[Tensor, "users items"]:
        """Score of every item: inner product with its vector, plus what the lists of the support's items say."""
        return self.near.add_to(query.vector @ self.item.T, query.rows, query.trust)

    def scores_among(self, rows: Int[Tensor, " some"], query: Query) -> Float[Tensor, "users some"]:
        """Scores of some rows, which may repeat."""
        return query.vector @ embedding(rows, self.item).T + self.near.among(rows, query.rows, query.trust)

    def scores_of(self, rows: Int[Tensor, "users wanted"], query: Query) -> Float[Tensor, "users wanted"]:
        """Scores of a few rows of each user's own."""
        products = torch.einsum("ud,uwd->uw", query.vector, embedding(rows, self.item))
        return products + self.near.of(rows, query.rows, query.trust)

    def head(self, size: int) -> "ItemSpace":
        """The first rows."""
        support, item, popularity, cold = (
            part[:size] for part in (self.support, self.item, self.popularity, self.cold)
        )
        return ItemSpace(support, item, self.near.head(size), popularity, cold)

    def to(self, device: torch.device) -> "ItemSpace":
        """The same space on another device."""
        return ItemSpace(
            *(part.to(device) for part in (self.support, self.item, self.near, self.popularity, self.cold))  # type: ignore[arg-type]
        )


class ItemTower(nn.Module):
    """The item side, in closed form: half-whitened text vectors, the scale of popularity, gains of stand-ins.

    A text vector is centred, turned to its leading directions, and each direction divided by the fourth root of its
    variance: half way to whitening, where no few directions that all texts share drown the others (bench/LEDGER.md).

    Args:
        text_dim: width of the encoder's vectors.
        layout: channels of the item space.
    """

    center: Tensor
    project: Tensor
    popular_scale: Tensor
    cold_gain: Tensor

    def __init__(self, text_dim: int, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("center", torch.zeros(text_dim))
        self.register_buffer("project", torch.zeros(text_dim, layout.widths[-3] - layout.alike))
        self.register_buffer("popular_scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("cold_gain", torch.ones(len(layout.parts)))  # calibrated on the ranking, after training

    @torch.no_grad()
    def start_from(self, vectors: Float[Tensor, "items text_dim"], counts: Float[Tensor, " items"]) -> None:
        """Centre and half-whitened leading directions of the texts; mean and spread of popularity.

        Args:
            vectors: text vectors of the catalogue; all-zero rows (items without text) are left out.
            counts: users per item.
        """
        known = vectors[(vectors != 0).any(1)]
        self.center.copy_(known.mean(0) if len(known) else self.center)
        centred = (known - self.center).double()
        variance, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(centred)))
        tells = variance > LEAST_VARIANCE * variance.max()  # along the others no two texts differ
        scale = torch.where(tells, variance.clamp(min=1e-30) ** -0.25, 0.0)
        self.project.copy_((axes * scale).flip(1)[:, : self.project.shape[1]])
        logs = torch.log1p(counts[counts > 0])
        self.popular_scale.copy_(torch.stack([logs.mean(), logs.std(correction=0).clamp(min=LEAST_SPREAD)]))

    def text(self, vectors: Float[Tensor, "items text_dim"]) -> Float[Tensor, "items rank"]:
        """The texts' part of the text channel: half-whitened and scaled to length 1; an item without text stays at zero."""
        has_text = (vectors != 0).any(1, keepdim=True)
        return torch.where(has_text, nn.functional.normalize((vectors - self.center) @ self.project, dim=1), 0.0)

    def popularity(self, counts: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """Standardised log count."""
        return (torch.log1p(counts) - self.popular_scale[0]) / self.popular_scale[1]

    def counts(self, popularity: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """The counts that `popularity` was made of."""
        return torch.expm1(popularity * self.popular_scale[1] + self.popular_scale[0])

    def lookalikes(self, vectors: Float[Tensor, "items text_dim"], cold: Bool[Tensor, " items"]) -> Lookalikes:
        """Lookalikes of the cold items, in row order, among the others."""
        text = self.text(vectors)
        return Lookalikes.find(text[cold], text, ~cold)

    def newcomers(
        self,
        text: Float[Tensor, "some rank"],
        alike: Lookalikes,
        support: Float[Tensor, "items dim"],
        item: Float[Tensor, "items dim"],
        counts: Float[Tensor, " items"],
    ) -> tuple[Float[Tensor, "some dim"], Float[Tensor, "some dim"]]:
        """Both sides of items that nobody has touched: their texts, and of the rest what their lookalikes have.

        The item side of a factor fitted on counts grows with the root of an item's count: it is averaged per root, so
        that directions count and not fame, and scaled back. Each part of the item side then has its calibrated gain.
        A channel is averaged over the lookalikes that have it. An item without a lookalike is not recommended as new,
        and has the popularity of one that nobody wants.

        Args:
            text: their text vectors, from `text`.
            alike: lookalikes of these items.
            support: support sides of all items.
            item: item sides of all items.
            counts: users per item; 0 for items that must not stand in.
        """
        root = (counts + 1).sqrt()[:, None]
        popularity = alike.mean(
            torch.cat([torch.ones_like(root), root, self.popularity(counts)[:, None]], dim=1), counts
        )
        known, size, guess = popularity[:, :1] > 0, popularity[:, 1:2], popularity[:, 2:]
        nothing = guess[:, :0]
        sides, items = [nothing], [nothing]
        for name, part in zip(self.layout.factors, self.layout.slices, strict=False):
            has = ((support[:, part] != 0) | (item[:, part] != 0)).any(1)
            scale = root if name in FITTED else torch.ones_like(root)
            mean = alike.mean(torch.cat([support[:, part], item[:, part] / scale], dim=1), counts * has)
            said, found_by = mean.chunk(2, dim=1)
            sides.append(said)
            items.append(found_by * (size if name in FITTED else 1.0))
        says, sought = (
            torch.cat([factors, text, factors[:, : self.layout.alike]], dim=1)
            for factors in (torch.cat(sides, dim=1), torch.cat(items, dim=1))
        )
        guess = torch.minimum(guess, guess * self.cold_gain[-1])  # a guess must not outbid a count
        guess = torch.where(known, guess, self.popularity(torch.zeros_like(guess[:, 0]))[:, None])
        *parts, _, _ = self.layout.parts.values()
        gained = [sought[:, part] * gain for part, gain in zip(parts, self.cold_gain, strict=False)]
        return (
            torch.cat([says, guess.new_zeros(len(guess), 2)], dim=1),
            torch.cat([*gained, known.to(guess.dtype), guess], dim=1),
        )

    @torch.no_grad()
    def space(
        self,
        pairs: Mapping[str, FactorPair],
        near: Neighbours,
        vectors: Float[Tensor, "items text_dim"],
        counts: Float[Tensor, " items"],
        dropped: Tensor | None = None,
        alike: Lookalikes | None = None,
    ) -> ItemSpace:
        """The item space of a catalogue.

        Args:
            pairs: factor channels by name, in the layout's order.
            near: neighbour lists.
            vectors: text vectors.
            counts: users per item; an item with none is cold.
            dropped: items to treat as cold whatever their count.
            alike: lookalikes of the cold items in row order, where they are known already.
        """
        cold = (counts == 0) if dropped is None else dropped | (counts == 0)
        nothing, text = counts.new_zeros(len(counts), 0), self.text(vectors)
        support, item = (
            torch.cat([getattr(pair, side) for pair in pairs.values()] + [nothing], 1) for side in ("support", "item")
        )
        read = support[:, : self.layout.alike]
        support = torch.cat([support, text, read, counts.new_zeros(len(counts), 2)], dim=1)
        last = torch.stack([torch.zeros_like(counts), self.popularity(counts)], dim=1)
        item = torch.cat([item, text, torch.zeros_like(read), last], dim=1)
        if cold.any():
            rows = cold.nonzero()[:, 0]
            alike = alike or self.lookalikes(vectors, cold)
            found = self.newcomers(text[rows], alike, support, item, torch.where(cold, 0.0, counts))
            support, item = (old.index_copy(0, rows, new) for old, new in zip((support, item), found, strict=True))
        return ItemSpace(support, item, near.without(cold), item[:, -1].contiguous(), cold)
