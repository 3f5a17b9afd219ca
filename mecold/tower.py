"""Item tower: text vectors, factors and counts become item vectors; and the space they form.

An item vector is the concatenation of channels: factor channels first (symmetric, directed, or a host's), then text,
then popularity. Each channel has a support side (what an item says about its user) and an item side (what the item is
found by). The text channel is tied; popularity has an item side only. A cold item lives on its text: its factors are
zero and its popularity is predicted from the text. Beside the vectors stand the neighbour lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from mecold.adapt import gramian
from mecold.factors import FactorPair
from mecold.neighbours import Neighbours


@dataclass(frozen=True)
class Layout:
    """Channels in order and their widths; the last two are always text and popularity."""

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
        popularity: standardised log count, or its prediction from text; the last column of `item`.
        cold: True for items that nobody has touched: no factors, popularity guessed from the text.
        gram: mean outer product of `item` over the catalogue.
    """

    support: Float[Tensor, "items dim"]
    item: Float[Tensor, "items dim"]
    near: Neighbours
    popularity: Float[Tensor, " items"]
    cold: Bool[Tensor, " items"]
    gram: Float[Tensor, "dim dim"]

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
        parts = (part[:size] for part in (self.popularity, self.cold))
        return ItemSpace(self.support[:size], self.item[:size], self.near.head(size), *parts, self.gram)

    def to(self, device: torch.device) -> "ItemSpace":
        """The same space on another device."""
        return ItemSpace(
            *(part.to(device) for part in (self.support, self.item, self.near, self.popularity, self.cold, self.gram))  # type: ignore[arg-type]
        )


class ItemTower(nn.Module):
    """The learned part of the item side: a bias-free projection of centred text vectors.

    Args:
        text_dim: width of the encoder's vectors.
        rank: width of the text channel.
    """

    center: Tensor
    popular_text: Tensor
    popular_scale: Tensor

    def __init__(self, text_dim: int, rank: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_dim, rank, bias=False)
        self.register_buffer("center", torch.zeros(text_dim))
        self.register_buffer("popular_text", torch.zeros(text_dim))
        self.register_buffer("popular_scale", torch.tensor([0.0, 1.0]))

    @torch.no_grad()
    def start_from(self, vectors: Float[Tensor, "items text_dim"], counts: Float[Tensor, " items"]) -> None:
        """Closed-form start: centre and leading directions of the texts; popularity by ridge regression on the text.

        Args:
            vectors: text vectors of the catalogue; all-zero rows (items without text) are left out.
            counts: users per item.
        """
        known = vectors[(vectors != 0).any(1)]
        self.center.copy_(known.mean(0) if len(known) else self.center)
        centred = known - self.center
        _, axes = torch.linalg.eigh(centred.T @ centred)
        rank = self.project.out_features
        self.project.weight.copy_(axes.flip(1)[:, :rank].T)
        logs = torch.log1p(counts)
        self.popular_scale.copy_(torch.stack([logs.mean(), logs.std(correction=0).clamp(min=1e-6)]))
        target = self.popularity(counts)[(vectors != 0).any(1)]
        gram = centred.T @ centred + 10.0 * torch.eye(vectors.shape[1])
        self.popular_text.copy_(torch.linalg.solve(gram, centred.T @ (target - target.mean())))

    def text(self, vectors: Float[Tensor, "items text_dim"]) -> Float[Tensor, "items rank"]:
        """Text channel: projected and scaled to length 1; an item without text stays at zero."""
        has_text = (vectors != 0).any(1, keepdim=True)
        return torch.where(has_text, nn.functional.normalize(self.project(vectors - self.center), dim=1), 0.0)

    def popularity(self, counts: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """Standardised log count."""
        return (torch.log1p(counts) - self.popular_scale[0]) / self.popular_scale[1]

    def expected_popularity(self, vectors: Float[Tensor, "items text_dim"]) -> Float[Tensor, " items"]:
        """What the text says of an item's popularity; for an item without text, the mean."""
        return torch.where((vectors != 0).any(1), (vectors - self.center) @ self.popular_text, 0.0)

    def space(
        self,
        pairs: Mapping[str, FactorPair],
        near: Neighbours,
        vectors: Float[Tensor, "items text_dim"],
        counts: Float[Tensor, " items"],
        cold: Tensor | None = None,
    ) -> ItemSpace:
        """The item space of a catalogue.

        Args:
            pairs: factor channels by name, in the layout's order.
            near: neighbour lists.
            vectors: text vectors.
            counts: users per item; an item with none is cold.
            cold: items to treat as cold whatever their count (dropped at random in training).
        """
        cold = (counts == 0) if cold is None else cold | (counts == 0)
        keep = (~cold).to(vectors.dtype)[:, None]
        text = self.text(vectors)
        popularity = torch.where(cold, self.expected_popularity(vectors), self.popularity(counts))
        item = torch.cat([pair.item * keep for pair in pairs.values()] + [text, popularity[:, None]], dim=1)
        nothing = torch.zeros_like(popularity)[:, None]
        support = torch.cat([pair.support * keep for pair in pairs.values()] + [text, nothing], dim=1)
        return ItemSpace(support, item, near.without(cold), popularity, cold, gramian(item))

    def layout(self, pairs: Mapping[str, FactorPair]) -> Layout:
        """The channels of the spaces this tower makes."""
        widths = tuple(pair.rank for pair in pairs.values())
        return Layout((*pairs, "text", "popularity"), (*widths, self.project.out_features, 1))
