"""Item tower: text vectors, factors and counts become item vectors; and the space they form.

An item vector is the concatenation of channels: factor channels first (symmetric, directed, or a host's), then text,
then popularity. Each channel has a support side (what an item says about its user) and an item side (what the item is
found by). The text channel is tied; newness and popularity have an item side only. A cold item lives on its text: beside its text
channel it has the mean factors and the mean popularity of the items with texts like its own. Beside the vectors stand the
neighbour lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from mecold.factors import FactorPair
from mecold.lookalikes import Lookalikes
from mecold.neighbours import Neighbours

NEW = "new"  # the channel of newness: 1 for an item that nobody has touched
LEAST_VARIANCE = 1e-6  # of a direction of the texts, as a share of the largest
LEAST_SPREAD = 0.1  # of log counts: where all items are equally popular, chance differences stay small
FITTED = ("symmetric", "directed")  # channels whose item side grows with an item's count


@dataclass(frozen=True)
class Layout:
    """Channels in order and their widths; the last three are always text, newness and popularity."""

    names: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Width of an item vector."""
        return sum(self.widths)

    @property
    def slices(self) -> list[slice]:
        """Where each channel lies in a vector."""
        ends = [sum(self.widths[: i + 1]) for i in range(len(self.widths))]
        return [slice(end - width, end) for end, width in zip(ends, self.widths, strict=True)]

    def expand(self, per_channel: Float[Tensor, "*any channels"]) -> Float[Tensor, "*any dim"]:
        """A value per channel, repeated over the channel's dimensions."""
        widths = torch.tensor(self.widths, device=per_channel.device)
        return torch.repeat_interleave(per_channel, widths, dim=-1, output_size=self.dim)


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
        rank: width of the text channel.
        channels: number of channels of the item space, the last three among them.
    """

    center: Tensor
    project: Tensor
    popular_scale: Tensor
    cold_gain: Tensor

    def __init__(self, text_dim: int, rank: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(text_dim))
        self.register_buffer("project", torch.zeros(text_dim, rank))
        self.register_buffer("popular_scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("cold_gain", torch.ones(channels))  # calibrated on the ranking, after training

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
        """Text channel: half-whitened and scaled to length 1; an item without text stays at zero."""
        has_text = (vectors != 0).any(1, keepdim=True)
        return torch.where(has_text, nn.functional.normalize((vectors - self.center) @ self.project, dim=1), 0.0)

    def popularity(self, counts: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """Standardised log count."""
        return (torch.log1p(counts) - self.popular_scale[0]) / self.popular_scale[1]

    def counts(self, popularity: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """The counts that `popularity` was made of."""
        return torch.expm1(popularity * self.popular_scale[1] + self.popular_scale[0])

    def stand_ins(
        self,
        alike: Lookalikes,
        support: Float[Tensor, "items width"],
        item: Float[Tensor, "items width"],
        counts: Float[Tensor, " items"],
        widths: Mapping[str, int],
    ) -> tuple[Float[Tensor, "some width"], Float[Tensor, "some width"], Float[Tensor, "some 2"]]:
        """Both sides of the factors, newness and popularity of items that nobody has touched: what their lookalikes have.

        The item side of a factor fitted on counts grows with the root of an item's count: it is averaged per root, so
        that directions count and not fame, and scaled back. Each channel of the item side then has its calibrated gain.
        A channel is averaged over the lookalikes that have it. An item without a lookalike is not recommended as new,
        and has the popularity of one that nobody wants.

        Args:
            alike: lookalikes of these items.
            support: support sides of the factor channels, all items.
            item: item sides of the factor channels, all items.
            counts: users per item; 0 for items that must not stand in.
            widths: names and widths of the factor channels.
        """
        root = (counts + 1).sqrt()[:, None]
        popularity = alike.mean(
            torch.cat([torch.ones_like(root), root, self.popularity(counts)[:, None]], dim=1), counts
        )
        known, size, guess = popularity[:, :1] > 0, popularity[:, 1:2], popularity[:, 2:]
        sides, items, start = [support[:0].new_zeros(len(known), 0)], [item[:0].new_zeros(len(known), 0)], 0
        for (name, width), gain in zip(widths.items(), self.cold_gain[:-3], strict=True):
            part = slice(start, start + width)
            has = ((support[:, part] != 0) | (item[:, part] != 0)).any(1)
            scale = root if name in FITTED else torch.ones_like(root)
            mean = alike.mean(torch.cat([support[:, part], item[:, part] / scale], dim=1), counts * has)
            sides.append(mean[:, :width])
            items.append(mean[:, width:] * gain * (size if name in FITTED else 1.0))
            start += width
        guess = torch.minimum(guess, guess * self.cold_gain[-1])  # a guess must not outbid a count
        guess = torch.where(known, guess, self.popularity(torch.zeros_like(guess[:, 0]))[:, None])
        return torch.cat(sides, dim=1), torch.cat(items, dim=1), torch.cat([known.to(guess.dtype), guess], dim=1)

    @torch.no_grad()
    def space(
        self,
        pairs: Mapping[str, FactorPair],
        near: Neighbours,
        vectors: Float[Tensor, "items text_dim"],
        counts: Float[Tensor, " items"],
        dropped: Tensor | None = None,
    ) -> ItemSpace:
        """The item space of a catalogue.

        Args:
            pairs: factor channels by name, in the layout's order.
            near: neighbour lists.
            vectors: text vectors.
            counts: users per item; an item with none is cold.
            dropped: items to treat as cold whatever their count.
        """
        cold = (counts == 0) if dropped is None else dropped | (counts == 0)
        nothing, text = counts.new_zeros(len(counts), 0), self.text(vectors)
        support, item = (
            torch.cat([getattr(pair, side) for pair in pairs.values()] + [nothing], 1) for side in ("support", "item")
        )
        last = torch.stack([torch.zeros_like(counts), self.popularity(counts)], dim=1)
        if cold.any():
            rows = cold.nonzero()[:, 0]
            alike = Lookalikes.find(text[rows], text, ~cold)
            widths = {name: pair.rank for name, pair in pairs.items()}
            found = self.stand_ins(alike, support, item, torch.where(cold, 0.0, counts), widths)
            support, item, last = (
                old.index_copy(0, rows, new) for old, new in zip((support, item, last), found, strict=True)
            )
        own = torch.where(cold, self.cold_gain[-3], 1.0)[:, None] * text
        item = torch.cat([item, own, last], dim=1)
        support = torch.cat([support, text, torch.zeros_like(last)], dim=1)
        return ItemSpace(support, item, near.without(cold), item[:, -1].contiguous(), cold)

    def layout(self, pairs: Mapping[str, FactorPair]) -> Layout:
        """The channels of the spaces this tower makes."""
        widths = tuple(pair.rank for pair in pairs.values())
        return Layout((*pairs, "text", NEW, "popularity"), (*widths, self.project.shape[1], 1, 1))
