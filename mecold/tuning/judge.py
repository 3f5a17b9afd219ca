"""Whether an encoder got better: how well it ranks items that training never saw, for users that training never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int64
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mecold.data.interactions import Interactions
from mecold.math.metrics import ndcg
from mecold.space.basis import Basis

MOST = 3_000  # held-out items, and users who are looked at
LEAST_USERS = 50
LEAST_ALIKE = 50  # held-out texts that have another of their thing
LEAST_KNOWN = 3  # items of a user beside the held-out ones
SHOTS = 10


@runtime_checkable
class Judge(Protocol):
    """Scores vectors, the higher the better."""

    @property
    def name(self) -> str:
        """Of the measure."""
        ...

    @property
    def reads(self) -> Int64[np.ndarray, " read"]:
        """Rows of the texts whose vectors it wants."""
        ...

    def score(self, vectors: Float[Tensor, "read dim"]) -> float:
        """One number."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """What training must not see.

    Args:
        items: rows of held-out items.
        users: places of held-out users.
    """

    items: Int64[np.ndarray, " items"]
    users: Int64[np.ndarray, " users"]

    @classmethod
    def draw(
        cls, rows: np.ndarray, texts: Sequence[str], things: np.ndarray, log: Interactions | None, share: float,
        rng: np.random.Generator,
    ) -> "HeldOut":  # fmt: skip
        """A share of texts, with all items that have them or are offers of the same thing, and of users, at random."""
        names, which = np.unique([texts[row] for row in rows], return_inverse=True)
        known = np.flatnonzero(things[rows] >= 0)
        if len(known):
            ties = (which[known], len(names) + things[rows[known]])
            size = int(ties[1].max()) + 1
            bound = connected_components(sp.coo_matrix((np.ones(len(known)), ties), (size, size)), directed=False)[1]
            names, which = np.unique(bound[which], return_inverse=True)
        size = min(int(np.ceil(share * len(names))), MOST)
        users = np.arange(0 if log is None else len(log))
        return cls(
            np.sort(rows[np.isin(which, rng.choice(len(names), size, replace=False))]),
            np.sort(rng.choice(users, int(share * len(users)), replace=False)),
        )

    def rest(self, log: Interactions) -> Interactions:
        """The histories of the other users, without these items."""
        others = log.take(np.setdiff1d(np.arange(len(log)), self.users))
        return others.where(~np.isin(others.items, self.items))


@dataclass(frozen=True)
class NewItems:
    """nDCG@10 of held-out items among themselves: a user is the sum of ten half-whitened texts, as in the text channel.

    Args:
        told: True for items that have a text.
        supports: up to ten newest known items of each user, `(users, items)`.
        liked: held-out items of each user, `(users, held-out)`.
        items: rows of the held-out items.
        counts: users per item.
    """

    told: Bool[Tensor, " all"]
    supports: sp.csr_matrix
    liked: np.ndarray
    items: Int64[np.ndarray, " items"]
    counts: Float[Tensor, " all"]
    name: str = "ndcg@10 of held-out items"

    @classmethod
    def of(cls, log: Interactions, held: HeldOut, texts: Sequence[str]) -> "NewItems | None":
        """From what the held-out users liked; None where fewer than 50 of them have known and held-out items."""
        kept, wanted, items = [], [], len(texts)
        for history in log.take(held.users).split():
            new = np.isin(history, held.items)
            if new.any() and (~new).sum() >= LEAST_KNOWN:
                kept.append(history[~new][-SHOTS:])
                wanted.append(np.searchsorted(held.items, history[new]))
        kept, wanted = kept[:MOST], wanted[:MOST]
        if len(kept) < LEAST_USERS:
            return None
        owners = np.repeat(np.arange(len(kept)), [len(one) for one in kept])
        rows = np.concatenate(kept)
        supports = sp.csr_matrix((np.ones(len(rows), np.float32), (owners, rows)), (len(kept), items))
        liked = np.zeros((len(kept), len(held.items)), bool)
        for user, places in enumerate(wanted):
            liked[user, places] = True
        counts = torch.from_numpy(np.bincount(held.rest(log).items, minlength=items).astype(np.float32))
        told = torch.tensor([text != "" for text in texts])
        return cls(told, supports, liked, held.items, counts)

    @property
    def reads(self) -> Int64[np.ndarray, " all"]:
        """All items."""
        return np.arange(len(self.told))

    def score(self, vectors: Tensor) -> float:
        """Mean over the users."""
        vectors = vectors.float().cpu() * self.told[:, None]
        if not vectors.isfinite().all():
            return -1.0  # training went astray: worse than anything
        text = Basis.fit(vectors, self.counts, vectors.shape[1]).text(vectors)
        scores = torch.from_numpy(self.supports @ text.numpy()) @ text[torch.from_numpy(self.items)].T
        liked = torch.from_numpy(self.liked)
        top = scores.topk(min(SHOTS, scores.shape[1]), dim=1).indices
        return float(ndcg(liked.gather(1, top), liked.sum(1)).mean())


@dataclass(frozen=True)
class Matching:
    """How often a held-out item's first view finds its second one, of all held-out items: mean reciprocal rank.

    For a shop without a log. The views lie behind the item texts: `(items + i, items + views + i)`.

    Args:
        first: rows of the first views.
        second: rows of the second views.
    """

    first: Int64[np.ndarray, " views"]
    second: Int64[np.ndarray, " views"]
    name: str = "reciprocal rank of an item's description under its title"

    @property
    def reads(self) -> Int64[np.ndarray, " both"]:
        """First views, then second ones."""
        return np.concatenate([self.first, self.second])

    def score(self, vectors: Tensor) -> float:
        """Mean over the items."""
        if not vectors.isfinite().all():
            return -1.0
        first, second = vectors.chunk(2)
        likeness = first @ second.T
        ranks = (likeness >= likeness.diagonal()[:, None]).sum(1)
        return float((1 / ranks.float()).mean())


@dataclass(frozen=True)
class SameThing:
    """How often the nearest of all other held-out texts belongs to the same thing: recall@1.

    Args:
        rows: rows of held-out texts of which another belongs to the same thing; each text once.
        things: of these.
    """

    rows: Int64[np.ndarray, " texts"]
    things: Int64[np.ndarray, " texts"]
    name: str = "recall@1 of the same thing"

    @classmethod
    def of(cls, held: HeldOut, texts: Sequence[str], things: np.ndarray) -> "SameThing | None":
        """Of the held-out items; None where fewer than 50 of them have another of their thing."""
        first = {texts[row]: row for row in reversed(held.items.tolist()) if things[row] >= 0}
        rows = np.sort(np.array(list(first.values()), np.int64))
        rows = rows[np.bincount(things[rows], minlength=1)[things[rows]] > 1] if len(rows) else rows
        return cls(rows, things[rows]) if len(rows) >= LEAST_ALIKE else None

    @property
    def reads(self) -> Int64[np.ndarray, " texts"]:
        """The held-out texts."""
        return self.rows

    def score(self, vectors: Tensor) -> float:
        """Mean over the texts."""
        own = vectors.float().cpu()
        if not own.isfinite().all():
            return -1.0
        likeness = own @ own.T
        return float((self.things[likeness.fill_diagonal_(-2.0).argmax(1).numpy()] == self.things).mean())
