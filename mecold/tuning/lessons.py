"""What an encoder can learn from: a task makes a lesson out of a shop's texts, columns and log, if there is ground for one.

Each lesson draws some of its texts for a step and says how wrong their vectors are. A task of your own is a function
`Ground -> Lesson | None`; pass it by name: `train_encoder(..., tasks={"mine": my_task})`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mecold.data.catalog import TextTemplate
from mecold.data.interactions import Interactions
from mecold.tuning.config import EncoderTraining

STEPS = 5  # two items within so many steps of one history were consumed together
LEAST_ITEMS = 16  # to learn anything from
SHRINK = 5.0  # ratings that an item's mean is shrunk by


@dataclass(frozen=True)
class Ground:
    """What tasks may read. Nothing of held-out items and users is in it.

    Args:
        texts: the text of every item that may be learned from, by row; "" for the others.
        columns: the item table, by row; empty for the others.
        rows: items that may be learned from.
        fields: columns that make the texts, in order.
        template: how columns become a text.
        log: histories of such items; None without a log.
        dim: width of the vectors.
        config: settings.
    """

    texts: Sequence[str]
    columns: pl.DataFrame
    rows: Int64[np.ndarray, " some"]
    fields: tuple[str, ...]
    template: TextTemplate
    log: Interactions | None
    dim: int
    config: EncoderTraining

    @property
    def liked(self) -> Interactions | None:
        """What users liked, of the kinds of events that are predicted."""
        return None if self.log is None else liked_of(self.log)

    def field_texts(self, names: Sequence[str]) -> list[str]:
        """Text of every item out of some columns alone; "" where they say nothing."""
        return replace(self.template, fields=tuple(names)).render(self.columns)[0]


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


Task: TypeAlias = Callable[[Ground], Lesson | None]


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


def liked_of(log: Interactions) -> Interactions:
    """The histories without what was disliked, and without events of kinds that are not predicted."""
    return log.where(log.goal & (log.labels_from(None) > 0))


def _met(log: Interactions, items: int) -> sp.csr_matrix:
    """How often one item came within five steps before another."""
    owners, first, second = log.owners, [], []
    for step in range(1, STEPS + 1):
        same = owners[step:] == owners[:-step]
        first.append(log.items[:-step][same])
        second.append(log.items[step:][same])
    places = (np.concatenate(first), np.concatenate(second))
    return sp.csr_matrix((np.ones(len(places[0]), np.float32), places), (items, items))


def _pairs(ground: Ground, *, fame: bool, directed: bool) -> Pairs | None:
    log, items = ground.liked, len(ground.texts)
    if log is None:
        return None
    met = _met(log, items)
    together = met if directed else (met + met.T).tocsr()
    if len(np.flatnonzero(np.diff(together.indptr))) < LEAST_ITEMS:
        return None
    counts = np.bincount(log.items, minlength=items).astype(np.float32).clip(1)
    head = nn.Linear(ground.dim, ground.dim, bias=False) if directed else nn.Identity()
    if isinstance(head, nn.Linear):
        nn.init.eye_(head.weight)
    return Pairs(ground.texts, together, counts, ground.config.temperature, fame, head)


def together(ground: Ground) -> Lesson | None:
    """Items met within five steps of one another in a history, popular ones more often."""
    return _pairs(ground, fame=True, directed=False)


def similar(ground: Ground) -> Lesson | None:
    """The same, freed of popularity: what is met with an item more often than with others."""
    return _pairs(ground, fame=False, directed=False)


def follows(ground: Ground) -> Lesson | None:
    """What came within five steps after an item; the item's vector goes through a map of its own."""
    return _pairs(ground, fame=True, directed=True)


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


def views(ground: Ground) -> Lesson | None:
    """The first text column (the title) against all others (brand, description): no log is read."""
    if len(ground.fields) < 2:
        return None
    first, second = (ground.field_texts(names) for names in (ground.fields[:1], ground.fields[1:]))
    rows = [row for row in ground.rows.tolist() if first[row] and second[row]]
    if len(rows) < LEAST_ITEMS:
        return None
    return Views([*(first[row] for row in rows), *(second[row] for row in rows)], ground.config.temperature)


def dropout(ground: Ground) -> Lesson | None:
    """The same text twice, as two different draws of dropout see it: no log and no second column is needed."""
    rows = [row for row in ground.rows.tolist() if ground.texts[row]]
    if len(rows) < LEAST_ITEMS:
        return None
    return Views([ground.texts[row] for row in rows] * 2, ground.config.temperature)


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

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Any texts."""
        return rng.choice(len(self.texts), min(count, len(self.texts)), replace=False)

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


def labels(ground: Ground) -> Lesson | None:
    """Columns of classes (category, brand, genres, ...), told from the title alone."""
    titles = ground.field_texts(ground.fields[:1])
    rows = [row for row in ground.rows.tolist() if titles[row]]
    table, found = ground.columns[rows], []
    for name in table.columns:
        if name in ("item_id", *ground.fields[:1]) or table[name].dtype not in (pl.String, pl.Categorical, pl.Enum):
            continue
        values = table[name].cast(pl.String)
        values = values.set(values == "", None)
        if 2 <= values.drop_nulls().n_unique() <= values.count() / 2:  # at least two items a class on average
            found.append(values.rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1)
    if not found or len(rows) < LEAST_ITEMS:
        return None
    return Labels([titles[row] for row in rows], np.stack(found), ground.config.temperature)


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


def _numbers(ground: Ground, *columns: np.ndarray | None) -> Lesson | None:
    """A lesson of the columns that are there and differ between items."""
    found = []
    for column in columns:
        own = None if column is None else column[ground.rows]
        if own is not None and np.isfinite(own).sum() >= LEAST_ITEMS and np.nanstd(own) > 0:
            found.append((own - np.nanmean(own)) / np.nanstd(own))
    if not found:
        return None
    head = nn.Linear(ground.dim, len(found))
    nn.init.zeros_(head.weight)
    return Numbers([ground.texts[row] for row in ground.rows.tolist()], np.stack(found, 1).astype(np.float32), head)


def usage(ground: Ground) -> Lesson | None:
    """How an item is used: how many users took it, on a log scale, and its price where there is a column."""
    if (liked := ground.liked) is None:
        return None
    counts = np.log1p(np.bincount(liked.items, minlength=len(ground.texts)))
    price = None
    if "price" in ground.columns.columns and ground.columns["price"].dtype.is_numeric():
        price = ground.columns["price"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        price = np.log(np.where(price > 0, price, np.nan))
    return _numbers(ground, counts, price)


def rating(ground: Ground) -> Lesson | None:
    """An item's mean rating and the spread of its ratings, both shrunk to those of all items."""
    if ground.log is None or ground.log.ratings is None:
        return None
    values, items = ground.log.ratings.astype(np.float64), ground.log.items
    count, total, square = (
        np.bincount(items, weights=w, minlength=len(ground.texts)) for w in (np.ones(len(items)), values, values**2)
    )
    mean = (total + SHRINK * values.mean()) / (count + SHRINK)
    spread = np.sqrt(
        ((square - count * (total / count.clip(1)) ** 2).clip(0) + SHRINK * values.var()) / (count + SHRINK)
    )
    return _numbers(ground, *(np.where(count > 0, one, np.nan) for one in (mean, spread)))


TASKS: dict[str, Task] = {
    "together": together, "follows": follows, "similar": similar, "labels": labels, "usage": usage, "rating": rating,
    "views": views, "dropout": dropout,
}  # fmt: skip
"""Every built-in task by name."""
