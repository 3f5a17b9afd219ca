"""Lessons, the building blocks of tasks: each draws some of its texts for a step, and says how wrong their vectors are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


@runtime_checkable
class Lesson(Protocol):
    """One thing to learn.

    Attributes:
        texts: all texts that it draws from.
        head: what it learns beside the encoder; thrown away at the end.
        size: how much there is to learn from; decides how often it is drawn.
    """

    texts: Sequence[str]
    head: nn.Module
    size: int

    def draw(self, rng: np.random.Generator, count: int) -> Int64[np.ndarray, " drawn"]:
        """Places of about so many texts, for one step."""
        ...

    def loss(self, vectors: Float[Tensor, "drawn dim"], drawn: Int64[np.ndarray, " drawn"]) -> Tensor:
        """How wrong the vectors of these texts are; vectors have length 1."""
        ...


@dataclass
class Pairs:
    """Items that go together: in a batch, each should be near the others in proportion to how often they did.

    The target of an item is how often each other item of the batch was met with it, so that one step reads every pair of
    the batch. Loss: cross-entropy of that share against the softmax of cosines over `temperature`. Without `fame` the
    log of the other item's count is added to its cosine (the logQ correction), and vectors need not know who is popular.
    """

    texts: Sequence[str]
    together: sp.csr_matrix
    counts: Float[np.ndarray, " items"]
    temperature: float
    fame: bool = True
    head: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.rows = np.flatnonzero(np.diff(self.together.indptr))
        weight = np.sqrt(self.counts[self.rows])
        self._chance = weight / weight.sum()
        self.size = int(self.together.nnz)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Different items, by the root of their counts."""
        return rng.choice(self.rows, min(count, len(self.rows)), replace=False, p=self._chance)

    def loss(self, vectors: Tensor, drawn: np.ndarray) -> Tensor:
        """Cross-entropy over the batch."""
        target = torch.from_numpy(self.together[drawn][:, drawn].toarray()).to(vectors.device)
        texts = np.unique([self.texts[row] for row in drawn], return_inverse=True)[1]
        same = torch.from_numpy(texts[:, None] == texts[None]).to(vectors.device)  # an item itself, and its twins
        logits = self.head(vectors) @ vectors.T / self.temperature
        if not self.fame:
            logits = logits + torch.from_numpy(np.log(self.counts[drawn])).to(logits)
        target = target.masked_fill(same, 0.0)
        some = target.sum(1) > 0
        logs = logits.masked_fill(same, -1e9).log_softmax(1)[some]
        share = target[some] / target[some].sum(1, keepdim=True)
        return -(share * logs).sum(1).mean() if some.any() else vectors.sum() * 0.0


@dataclass
class Views:
    """Two texts of one item should be nearer to one another than to the texts of other items.

    `texts` holds the first views of all items, then the second ones. Where both are the same text, dropout makes them differ.
    """

    texts: Sequence[str]
    temperature: float
    head: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.size = len(self.texts) // 2

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """First views of some items, then their second ones."""
        some = rng.choice(self.size, min(max(2, count // 2), self.size), replace=False)
        return np.concatenate([some, some + self.size])

    def loss(self, vectors: Tensor, drawn: np.ndarray) -> Tensor:
        """Cross-entropy of finding the other view, both ways."""
        first, second = vectors.chunk(2)
        names = [np.array([self.texts[at] for at in half]) for half in np.split(drawn, 2)]
        twins = np.any([own[:, None] == own[None] for own in names], axis=0)  # one title on two items is right for both
        np.fill_diagonal(twins, val=False)
        logits = first @ second.T / self.temperature
        logits = logits.masked_fill(torch.from_numpy(twins).to(vectors.device), -1e9)
        right = torch.arange(len(first), device=vectors.device)
        return (nn.functional.cross_entropy(logits, right) + nn.functional.cross_entropy(logits.T, right)) / 2


@dataclass
class Labels:
    """Titles of one class should be nearer to one another than to other titles, for every column of classes.

    Supervised contrast within the batch: there is no weight per class, so a million classes are as cheap as two.
    """

    texts: Sequence[str]
    classes: Int64[np.ndarray, "columns texts"]
    temperature: float
    head: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        self.size = int((self.classes >= 0).sum())
        self._order = np.argsort(self.classes, axis=1, kind="stable")  # members of a class lie together
        self._place = np.argsort(self._order, axis=1)
        ranked = np.take_along_axis(self.classes, self._order, axis=1)
        self._first = np.stack([np.searchsorted(*pair) for pair in zip(ranked, self.classes, strict=True)])
        self._end = np.stack([np.searchsorted(*pair, "right") for pair in zip(ranked, self.classes, strict=True)])

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Any texts that have a class, and for each another of its class, if there is one."""
        column = rng.integers(len(self.classes))
        some = np.flatnonzero(self.classes[column] >= 0)
        some = rng.choice(some, min(max(1, count // 2), len(some)), replace=False)
        first, size = self._first[column, some], (self._end - self._first)[column, some]
        further = 1 + rng.integers(0, np.maximum(size - 1, 1))
        mates = self._order[column, first + (self._place[column, some] - first + further) % size]
        return np.unique(np.concatenate([some, mates]))

    def loss(self, vectors: Tensor, drawn: np.ndarray) -> Tensor:
        """Mean over the columns."""
        logits = vectors @ vectors.T / self.temperature
        logits = logits.masked_fill(torch.eye(len(drawn), dtype=torch.bool, device=vectors.device), -1e9)
        logs, losses = logits.log_softmax(1), [vectors.sum() * 0.0]
        for classes in torch.from_numpy(self.classes[:, drawn]).to(vectors.device):
            alike = (classes[:, None] == classes[None]) & (classes >= 0)[:, None]
            alike = alike.fill_diagonal_(False)
            some = alike.any(1)
            if some.any():
                losses.append(-((logs * alike).sum(1)[some] / alike[some].sum(1)).mean())
        return torch.stack(losses).sum() / max(1, len(losses) - 1)


@dataclass
class Numbers:
    """Standardised numbers of an item, read off its vector by a linear head; mean squared error."""

    texts: Sequence[str]
    values: Float[np.ndarray, "texts numbers"]
    head: Any

    def __post_init__(self) -> None:
        self.size = int(np.isfinite(self.values).sum())

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Any texts."""
        return rng.choice(len(self.texts), min(count, len(self.texts)), replace=False)

    def loss(self, vectors: Tensor, drawn: np.ndarray) -> Tensor:
        """Over the numbers that are known."""
        wanted = torch.from_numpy(self.values[drawn]).to(vectors)
        there = torch.isfinite(wanted)
        return ((self.head(vectors) - wanted.nan_to_num()) ** 2)[there].mean() if there.any() else vectors.sum() * 0.0


@dataclass
class Clicks:
    """Texts that were shown beside one another: those clicked more often should score higher, by a linear head.

    Of the clicks of a group, text i should get the share `shown_i exp(s_i) / sum_j shown_j exp(s_j)`; the loss is the mean
    cross-entropy of a click. A group's own level of clicks falls out, and so do its time and place.
    """

    texts: Sequence[str]
    shown: Float[np.ndarray, " texts"]
    clicks: Float[np.ndarray, " texts"]
    groups: Int64[np.ndarray, " texts"]
    head: Any
    temperature: float

    def __post_init__(self) -> None:
        self.size = len(self.texts)
        self._members = np.split(np.argsort(self.groups, kind="stable"), np.cumsum(np.bincount(self.groups))[:-1])

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Whole groups; of a group that is larger than a step, a part."""
        found: list[np.ndarray] = []
        for group in rng.permutation(len(self._members)):
            members = self._members[group]
            members = rng.permutation(members)[:count]
            if found and sum(map(len, found)) + len(members) > count:
                break
            found.append(members)
        return np.concatenate(found)

    def loss(self, vectors: Tensor, drawn: np.ndarray) -> Tensor:
        """Cross-entropy of which text of its group a click went to."""
        shown, clicks = (torch.from_numpy(one[drawn]).to(vectors) for one in (self.shown, self.clicks))
        groups = torch.from_numpy(self.groups[drawn]).to(vectors.device)
        scores = self.head(vectors)[:, 0] / self.temperature + shown.log()
        others = scores.masked_fill(groups[:, None] != groups, -torch.inf)
        loss: Tensor = -(clicks * (scores - others.logsumexp(1))).sum() / clicks.sum().clamp(min=1.0)
        return loss
