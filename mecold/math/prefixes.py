"""Every place in every history as a row of two matrices: the faded last items before it, and the items that follow.

`prefixes` lays both down, entry by entry. For a long log that is too much: `Prefixes` knows them by products alone. A faded sum
is the one before it, faded once more, plus an item; so is its transpose, read from the end; and a sum over the next items is
the next one, plus an item and less another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

_LONGEST = 256  # places that are walked through at a time; longer histories are cut into stretches
_AT_ONCE = 1 << 21  # numbers of a few stretches, 8 MB

Side: TypeAlias = Literal["past", "ahead"]


def prefixes(
    items: Int64[np.ndarray, " rows"],
    users: Int64[np.ndarray, " rows"],
    width: int,
    *,
    past: int,
    fade: float,
    window: int,
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """One row per proper prefix of a history: its last items, faded by age; and the items that follow."""
    n = len(items)
    here = np.arange(n)
    rows_of: list[list[np.ndarray]] = [[], []]
    values: list[np.ndarray] = []
    columns: list[list[np.ndarray]] = [[], []]
    for age in range(min(past, n - 1)):
        at = here[age + 1 :][users[age + 1 :] == users[: n - age - 1]]  # a prefix ends before row `at`
        rows_of[0].append(at)
        columns[0].append(items[at - 1 - age])
        values.append(np.full(len(at), np.exp(-age / fade), np.float32))
    for step in range(min(window, n - 1)):
        at = here[1 : n - step][users[1 : n - step] == users[1 + step :]]
        at = at[users[at - 1] == users[at]]
        rows_of[1].append(at)
        columns[1].append(items[at + step])
    empty = [np.empty(0, np.int64)]
    S, T = (
        sp.csr_matrix((v, (np.concatenate(r or empty), np.concatenate(c or empty))), (n, width))
        for r, c, v in (
            (rows_of[0], columns[0], np.concatenate(values or [np.empty(0, np.float32)])),
            (rows_of[1], columns[1], np.ones(sum(map(len, columns[1])), np.float32)),
        )
    )
    return S, T


def pairs_between(offsets: Int64[np.ndarray, " users_plus_one"], past: int, window: int) -> int:
    """How many products of an entry of the past and one of what is ahead there are in all rows."""
    sizes = np.diff(offsets)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    left = np.repeat(sizes, sizes) - place
    return int((np.minimum(place, past) * np.minimum(left, window)).sum())


@dataclass(frozen=True)
class Stretches:
    """Parts of histories, equally long, one beside the other.

    Args:
        items: columns of the items, oldest first.
        weights: of the row that ends before each item; 0 for rows that are another stretch's, or none.
    """

    items: Int[Tensor, "length stretches"]
    weights: Float[Tensor, "length stretches"]


@dataclass(frozen=True)
class Prefixes:
    """The matrices of `prefixes`, rows weighed, as far as products go.

    Args:
        stretches: of all histories, by length.
        width: number of items.
        past: how many items of a prefix are read.
        fade: an item `a` steps older weighs exp(-a / fade).
        window: how many following items count.
    """

    stretches: tuple[Stretches, ...]
    width: int
    past: int
    fade: float
    window: int

    @classmethod
    def of(
        cls,
        items: Int64[np.ndarray, " rows"],
        offsets: Int64[np.ndarray, " users_plus_one"],
        weights: Float32[np.ndarray, " rows"],
        width: int,
        *,
        past: int,
        fade: float,
        window: int,
        device: torch.device,
    ) -> "Prefixes":
        """From histories.

        Args:
            items: columns, user after user, oldest first.
            offsets: where each history starts and ends.
            weights: of the row that ends before each item.
            width: number of items.
            past: how many items of a prefix are read.
            fade: see `Prefixes`.
            window: how many following items count.
            device: where products are made.
        """
        starts, ends, firsts, lasts = _cut(offsets, past, window)
        sizes, found = ends - starts, []
        for size in np.unique(sizes):
            some = sizes == size
            at = starts[some] + np.arange(size)[:, None]
            own = (at >= firsts[some]) & (at < lasts[some])
            parts = items[at].astype(np.int32), np.where(own, weights[at], 0).astype(np.float32)
            found.append(Stretches(*(torch.from_numpy(part).to(device) for part in parts)))
        return cls(tuple(found), width, past, fade, window)

    @property
    def device(self) -> torch.device:
        """Where products are made."""
        return self.stretches[0].items.device

    def inner(self) -> "Between":
        """The past's Gram matrix."""
        return Between(self, "past", "past")

    def follows(self) -> "Between":
        """What is ahead, by the past: items by items."""
        return Between(self, "past", "ahead")

    def gram(self) -> Float[Tensor, "items items"]:
        """The past's Gram matrix as a dense one."""
        return self.inner() @ torch.eye(self.width, device=self.device)

    def squares(self) -> Float[Tensor, " items"]:
        """The diagonal of that."""
        found = torch.zeros(self.width, 1, device=self.device)
        for part in self._parts(1):
            backwards = range(len(part.weights) - 1, -1, -1)
            squared = _faded(part.weights.square()[..., None], self.past, self.fade / 2, backwards)
            found.index_add_(0, part.items.flatten(), squared.flatten(0, 1))
        return found[:, 0]

    def product(self, left: Side, right: Side, dense: Float[Tensor, "items some"]) -> Float[Tensor, "items some"]:
        """`left' @ right @ dense`."""
        found = torch.zeros_like(dense)
        for part in self._parts(dense.shape[1]):
            rows = dense.index_select(0, part.items.flatten()).view(*part.items.shape, -1)
            rows = self._read(right, rows, back=False) * part.weights.square()[..., None]
            rows = self._read(left, rows, back=True)
            found.index_add_(0, part.items.flatten(), rows.flatten(0, 1))
        return found

    def _parts(self, columns: int) -> Iterator[Stretches]:
        for one in self.stretches:
            step = max(1, _AT_ONCE // (len(one.items) * columns))
            for start in range(0, one.items.shape[1], step):
                some = slice(start, start + step)
                yield Stretches(one.items[:, some], one.weights[:, some])

    def _read(self, side: Side, rows: Float[Tensor, "length some columns"], *, back: bool) -> Tensor:
        """What rows of this side read; or, going back, what is read of each item."""
        onwards = (side == "past") != back
        order = range(len(rows)) if onwards else range(len(rows) - 1, -1, -1)
        return _faded(rows, self.past, self.fade, order) if side == "past" else _windowed(rows, self.window, order)


@dataclass(frozen=True)
class Between:
    """`left' @ right`, as far as products with it go."""

    prefixes: Prefixes
    left: Side
    right: Side

    def __matmul__(self, dense: Float[Tensor, "items some"]) -> Float[Tensor, "items some"]:
        """The product with a dense matrix."""
        return self.prefixes.product(self.left, self.right, dense)

    @property
    def T(self) -> "Between":  # noqa: N802 (as in numpy and torch)
        """The transposed product."""
        return Between(self.prefixes, self.right, self.left)


def _cut(
    offsets: Int64[np.ndarray, " users_plus_one"], past: int, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Stretches: where each starts and ends, and of which places the rows are its own.

    A stretch of a long history reaches as far before and behind its rows as they read.
    """
    own = max(1, _LONGEST - past - window)
    starts, ends, firsts, lasts = [], [], [], []
    begin, end = offsets[:-1], offsets[1:]
    short = end - begin <= _LONGEST
    for user in np.flatnonzero(~short):
        first = np.arange(begin[user], end[user], own)
        last = np.minimum(first + own, end[user])
        starts.append(np.maximum(first - past, begin[user]))
        ends.append(np.minimum(last + window - 1, end[user]))
        firsts.append(np.maximum(first, begin[user] + 1))
        lasts.append(last)
    some = short & (end - begin >= 2)
    parts = (
        ([begin[some]], starts),
        ([end[some]], ends),
        ([begin[some] + 1], firsts),
        ([end[some]], lasts),
    )
    a, b, c, d = (np.concatenate([*one, *more]) for one, more in parts)
    return a, b, c, d


def _faded(rows: Tensor, most: int, fade: float, order: range) -> Tensor:
    """In this order: at each place the faded sum over at most so many places before it."""
    once, gone = float(np.exp(-1 / fade)), float(np.exp(-most / fade))
    found, total, far = torch.empty_like(rows), torch.zeros_like(rows[0]), most * order.step
    for place in order:
        found[place] = total
        total.mul_(once).add_(rows[place])
        if 0 <= place - far < len(rows):
            total.sub_(rows[place - far], alpha=gone)
    return found


def _windowed(rows: Tensor, window: int, order: range) -> Tensor:
    """In this order: at each place the sum over it and those before it, so many in all."""
    found, total, far = torch.empty_like(rows), torch.zeros_like(rows[0]), window * order.step
    for place in order:
        total.add_(rows[place])
        if 0 <= place - far < len(rows):
            total.sub_(rows[place - far])
        found[place] = total
    return found
