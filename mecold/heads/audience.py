"""The head of audiences: who will want an item, by its text, and by those who wanted it first.

What speaks for a user are a handful of numbers (`SIGNS`): how much they do at all, how many items of theirs have texts like this
one's, how like they are to those who have such items, and how like to the first takers. How far each is to be trusted depends on
how many takers are known, and is meta-learned on known items treated as new. Arrays only: no ids, no state.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Float32, Int64

from mecold.space.profiles import length_one

KNOTS = (0, 1, 2, 5, 10, 20, 50)
"""Numbers of first takers that have trusts of their own; between them they are interpolated in log(1 + n)."""

POWERS = (2, 4, 8)  # of a text's likeness: from all that is somewhat alike to what is much alike
FLOOR = 0.05  # logarithms of sums of likenesses start here
SIGNS = ("activity", "texts, far", "texts, near", "texts, close", "like such users", "like takers", "items of takers")
OF_TAKERS = np.array([name.endswith("takers") for name in SIGNS])
OF_TEXTS = np.array([name.startswith("texts") or name == "like such users" for name in SIGNS])


@dataclass(frozen=True)
class Crowd:
    """Users and items as this head sees them.

    Args:
        had: users and what they had, of ones.
        sides: what each item says of who had it.
        text: text vectors of length 1, or of 0 for an item without text.
    """

    had: sp.csr_matrix
    sides: Float32[np.ndarray, "items dim"]
    text: Float32[np.ndarray, "items width"]

    @cached_property
    def takers(self) -> sp.csc_matrix:
        """`had` by item."""
        return self.had.tocsc()

    def takers_of(self, item: int) -> Int64[np.ndarray, " takers"]:
        """Users who had an item."""
        found: np.ndarray = self.takers.indices[slice(*self.takers.indptr[item : item + 2])].astype(np.int64)
        return found

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " users"]:
        """Items of each user."""
        return np.diff(self.had.indptr).astype(np.int64)

    @cached_property
    def rare(self) -> sp.csr_matrix:
        """Rows of `had` with rare items weighing more, of length 1."""
        counts = np.diff(self.takers.indptr)
        rows = self.had @ sp.diags(np.maximum(counts, 3.0) ** -0.25)
        length = np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
        found: sp.csr_matrix = (sp.diags(1 / np.maximum(length, 1e-9)) @ rows).tocsr().astype(np.float32)
        return found

    @cached_property
    def sums(self) -> Float32[np.ndarray, "users dim"]:
        """Sum of what each user's items say."""
        found: np.ndarray = self.had @ self.sides
        return found

    @cached_property
    def center(self) -> Float32[np.ndarray, " dim"]:
        """Mean profile."""
        found: np.ndarray = length_one(self.sums).mean(0)
        return found

    @cached_property
    def unit(self) -> Float32[np.ndarray, "users dim"]:
        """Profiles beside the mean one, of length 1."""
        return self._unit(self.sums)

    def _unit(self, sums: np.ndarray) -> Float32[np.ndarray, "users dim"]:
        return length_one(length_one(sums) - self.center)

    def signs(
        self,
        item: int | None,
        first: Int64[np.ndarray, " takers"],
        users: Int64[np.ndarray, " some"] | slice,
    ) -> Float[np.ndarray, "some signs"]:
        """What speaks for users. Nothing of it knows who had the item itself, but for the first takers.

        Args:
            item: row of the item; None where only takers are known.
            first: those who are known to want it.
            users: whom to ask about.
        """
        n = len(self.sizes)
        own = np.empty(0, np.int64) if item is None else self.takers_of(item)
        sizes, unit = self.sizes, self.unit
        if len(own):  # as if they had not had it
            sizes = sizes.copy()
            sizes[own] -= 1
            changed = self._unit(self.sums[own] - self.sides[item])
        place = np.full(n, -1)
        place[own] = np.arange(len(own))

        def units(rows: np.ndarray) -> np.ndarray:
            found: np.ndarray = unit[rows]
            at = place[rows]
            if (at >= 0).any():
                found = np.where((at >= 0)[:, None], changed[at], found)
            return found

        some = np.arange(n)[users]
        signs = np.zeros((len(some), len(SIGNS)))
        signs[:, 0] = np.log1p(sizes[some])
        mine = units(some)
        if item is not None:
            like = np.maximum(self.text @ self.text[item], 0.0)
            like[item] = 0.0
            sums = np.stack([self.had @ like**power for power in POWERS], 1)
            signs[:, 1:4] = np.log(FLOOR + sums[some])
            toward = unit.T @ sums[:, 1]
            if len(own):
                toward = toward + (changed - unit[own]).T @ sums[own, 1]
            signs[:, 4] = mine @ length_one(toward[None])[0]
        if len(first):
            signs[:, 5] = mine @ length_one(units(first).sum(0, keepdims=True))[0]
            towards = np.asarray(self.rare[first].mean(0)).ravel()
            if item is not None:
                towards[item] = 0.0
            signs[:, 6] = np.log(FLOOR + self.rare[some] @ towards)
        return signs


@dataclass(frozen=True)
class Trust:
    """How far each sign is to be trusted.

    Args:
        with_text: weights of the signs and a constant, by number of takers.
        without: the same where no item is named; those of texts are 0.
    """

    with_text: Float[np.ndarray, "knots weights"]
    without: Float[np.ndarray, "knots weights"]

    def logits(self, signs: Float[np.ndarray, "some signs"], takers: int, *, named: bool) -> Float[np.ndarray, " some"]:
        """Logit of wanting it.

        Args:
            signs: what speaks for users.
            takers: number of first takers.
            named: whether an item is, beside takers.
        """
        table = self.with_text if named else self.without
        at = np.log1p(min(takers, KNOTS[-1]))
        weights = np.array([np.interp(at, np.log1p(KNOTS), column) for column in table.T])
        found: np.ndarray = signs @ weights[:-1] + weights[-1]
        return found
