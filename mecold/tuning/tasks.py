"""Tasks: each makes a lesson out of a shop's texts, columns and log, if there is ground for one.

A task of your own is a function `Ground -> Lesson | None`; pass it by name: `train_encoder(..., tasks={"mine": my_task})`.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import polars as pl
import scipy.sparse as sp
from torch import nn

from mecold.data.interactions import Interactions
from mecold.tuning.ground import LEAST_ITEMS, Ground
from mecold.tuning.lessons import Clicks, Labels, Lesson, Numbers, Pairs, Views

STEPS = 5  # two items within so many steps of one history were consumed together
SHRINK = 5.0  # ratings that an item's mean is shrunk by


Task: TypeAlias = Callable[[Ground], Lesson | None]


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


def views(ground: Ground) -> Lesson | None:
    """The first text column (the title) against all others (brand, description): no log is read."""
    if len(ground.fields) < 2:
        return None
    first, second = (ground.all_texts(names) for names in (ground.fields[:1], ground.fields[1:]))
    both = [pair for pair in zip(first, second, strict=True) if all(pair)]
    if len(both) < LEAST_ITEMS:
        return None
    return Views([*(one for one, _ in both), *(other for _, other in both)], ground.config.temperature)


def dropout(ground: Ground) -> Lesson | None:
    """The same text twice, as two different draws of dropout see it: no log and no second column is needed."""
    texts = [text for text in ground.all_texts(ground.fields) if text]
    return Views(texts * 2, ground.config.temperature) if len(texts) >= LEAST_ITEMS else None


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


def same(ground: Ground) -> Lesson | None:
    """Texts of one thing (offers of one product, say) are near one another, by the column that `same` names."""
    rows = np.flatnonzero(ground.things >= 0)
    many = np.bincount(ground.things[rows], minlength=1) > 1
    rows = rows[many[ground.things[rows]]]
    if len(rows) < LEAST_ITEMS:
        return None
    return Labels([ground.texts[row] for row in rows.tolist()], ground.things[None, rows], ground.config.temperature)


def clicks(ground: Ground) -> Lesson | None:
    """Which of several texts that were shown beside one another was clicked more often."""
    if ground.impressions is None:
        return None
    told = ground.impressions.filter(pl.col("text").n_unique().over("group") > 1)
    if len(told) < LEAST_ITEMS or not told["clicks"].sum():
        return None
    head = nn.Linear(ground.dim, 1, bias=False)
    nn.init.zeros_(head.weight)
    shown, clicked = (told[name].to_numpy().astype(np.float32) for name in ("impressions", "clicks"))
    groups = told["group"].rank("dense").to_numpy().astype(np.int64) - 1
    return Clicks(told["text"].to_list(), shown, clicked, groups, head, ground.config.temperature)


TASKS: dict[str, Task] = {
    "together": together, "follows": follows, "similar": similar, "labels": labels, "usage": usage, "rating": rating,
    "views": views, "dropout": dropout, "same": same, "clicks": clicks,
}  # fmt: skip
"""Every built-in task by name."""
