"""What can be evaluated: anything that fits on training histories and scores the catalogue for a batch of supports.

A *system* is an object with a `name` and `fit(training)`; what `fit` returns has `adapt(supports)` and `scores(state)`.
A plain function `f(training)` that returns a function `g(supports) -> scores` will do too. An `Entry` is either, with what
else a run has to know of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import polars as pl
import scipy.sparse as sp
from jaxtyping import Float32, Int64

from mecold.data.attributes import of_these
from mecold.data.histories import Histories
from mecold.data.interactions import Interactions
from mecold.errors import InvalidDataError, few
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import Tasks
from mecold.lazy import cached_property

Supports: TypeAlias = Sequence[np.ndarray]
"""Rows of the support items of each user, oldest first."""

Kind: TypeAlias = Literal["order-blind", "order-aware", "mecold", "other"]


@dataclass(frozen=True)
class Training:
    """What a system may see: training histories, the whole catalogue, texts.

    Args:
        log: training histories, oldest item first, disliked items among them.
        dataset: catalogue, item table and text vectors.
        seed: for everything random in a system.
        device: a torch device for systems that use one.
    """

    log: Interactions
    dataset: Dataset
    seed: int = 0
    device: str = "cpu"

    @property
    def n_items(self) -> int:
        """Size of the catalogue; scores have this many columns."""
        return self.dataset.catalog.size

    @property
    def vectors(self) -> Float32[np.ndarray, "items text_dim"]:
        """Text vectors by row."""
        return self.dataset.vectors

    @property
    def items(self) -> pl.DataFrame:
        """The caller's item table, one row per row of the catalogue."""
        return self.dataset.items

    @cached_property
    def attributes(self) -> pl.DataFrame | None:
        """What else is known of the training users, a row each; None where nothing is."""
        known = self.dataset.attributes
        return None if known is None else of_these(known, self.log.users)

    @cached_property
    def liked(self) -> Interactions:
        """The training histories without what was not liked."""
        return self.log if self.log.labels is None else self.log.where(self.log.labels > 0)

    @cached_property
    def matrix(self) -> sp.csr_matrix:
        """Ones where a user liked an item, users by items."""
        log = self.liked
        return sp.csr_matrix(
            (np.ones(len(log.items), np.float32), log.items.copy(), log.offsets.copy()), (len(log), self.n_items)
        )

    @cached_property
    def counts(self) -> Float32[np.ndarray, " items"]:
        """Training users per item who liked it, as an event that is predicted."""
        return np.bincount(self.liked.items[self.liked.goal], minlength=self.n_items).astype(np.float32)

    @cached_property
    def tie(self) -> Float32[np.ndarray, " items"]:
        """What the baselines add to every score: popularity breaks ties, and answers a user without a support."""
        return (1e-6 * self.counts / max(1.0, float(self.counts.max()))).astype(np.float32)

    def frame(self) -> pl.DataFrame:
        """The training histories as a frame: user_id, item_id, position; timestamp, label and event where there are any."""
        sizes = self.log.lengths
        frame = pl.DataFrame(
            {
                "user_id": self.log.users.gather(self.log.owners),
                "item_id": self.dataset.catalog.ids.gather(self.log.items),
                "position": np.arange(len(self.log.items)) - np.repeat(self.log.offsets[:-1], sizes),
            }
        )
        if self.log.order == "timestamp":
            frame = frame.with_columns(pl.Series("timestamp", self.log.times))
        if self.log.labels is not None:
            frame = frame.with_columns(pl.Series("label", self.log.labels))
        if self.log.kinds is not None:
            names = pl.Series(list(self.log.events.names), dtype=pl.String)
            frame = frame.with_columns(names.gather(self.log.kinds).alias("event"))
        return frame


@runtime_checkable
class Fitted(Protocol):
    """A fitted system. Two steps, so that adaptation and recommendation can be timed apart.

    One with an attribute `reads`, a tuple of names, gets more by name: `times` (of each user's last item), `labels` (of the
    supports, None where everything is liked), `kinds` (of events) and `attributes` (a frame, a row per user). Who does not
    read labels is handed liked items alone. One with an attribute `told`, a text, says there what it chose; it stands on the
    report page.
    """

    def adapt(self, supports: Supports) -> Any:
        """Whatever the system knows of these users; one state for the batch."""
        ...

    def scores(self, state: Any) -> np.ndarray:
        """Scores of the whole catalogue, `(users, items)`, higher is better; finite, or -inf for "never"."""
        ...


@runtime_checkable
class System(Protocol):
    """Something to evaluate.

    Three optional attributes: `kind` (see `Kind`; decides which envelope it belongs to), `needs_text` (True if it reads
    `training.vectors`; they are encoded before its clock starts) and `fingerprint`, text that changes whenever results
    would. Results of a system without a fingerprint are never taken from an earlier run.
    """

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    def fit(self, training: Training) -> Fitted:
        """Fit on the training histories; nothing else of the data set's interactions may be used."""
        ...


TOLD = ("times", "labels", "kinds", "attributes")
"""What a system may ask for beside supports: fields of `Tasks`."""

Scorer: TypeAlias = Callable[[Supports], np.ndarray]


@dataclass(frozen=True)
class ScorerFitted:
    """A plain function of supports as a fitted system."""

    scorer: Scorer

    def adapt(self, supports: Supports) -> Supports:
        """Nothing to prepare."""
        return supports

    def scores(self, state: Supports) -> np.ndarray:
        """What the function says."""
        return self.scorer(state)


@dataclass(frozen=True)
class FunctionSystem:
    """A function `f(training) -> g(supports) -> scores` as a system."""

    name: str
    function: Callable[[Training], Scorer]

    def fit(self, training: Training) -> Fitted:
        """Call the function."""
        made = self.function(training)
        if not callable(made):
            raise InvalidDataError(
                f"The function of system {self.name!r} returned a {type(made).__name__}; it must return a function "
                "that takes supports (a list of row arrays) and returns scores, one row per user, one column per item."
            )
        return ScorerFitted(made)


@dataclass(frozen=True)
class Ranker:
    """A fitted system as a run calls it.

    Args:
        fitted: the system.
        reads: what its `adapt` takes beside supports.
    """

    fitted: Fitted
    reads: tuple[str, ...] = ()

    @classmethod
    def of(cls, fitted: Fitted) -> "Ranker":
        """Read the optional attribute.

        Raises:
            InvalidDataError: if it names what there is not.
        """
        reads = tuple(getattr(fitted, "reads", ()))
        if odd := [name for name in reads if name not in TOLD]:
            raise InvalidDataError(f"{type(fitted).__name__}.reads names {few(odd)}; there is {', '.join(TOLD)}.")
        return cls(fitted, reads)

    def adapt(self, tasks: Tasks) -> Any:
        """One state for the batch."""
        supports = tasks.supports
        if tasks.labels is not None and "labels" not in self.reads:
            supports = [rows[own > 0] for rows, own in zip(supports, tasks.labels, strict=True)]
        adapt: Callable[..., Any] = self.fitted.adapt
        return adapt(supports, **{name: getattr(tasks, name) for name in self.reads})

    def scores(self, state: Any) -> np.ndarray:
        """Scores of the whole catalogue."""
        return self.fitted.scores(state)


@dataclass(frozen=True)
class Entry:
    """A system that takes part in a run, with all that the run asks of it.

    Args:
        name: how reports call it.
        system: what is fitted.
        kind: which envelope it belongs to, if any.
        needs_text: whether it reads text vectors.
        fingerprint: changes whenever its results would; None: they are never taken from an earlier run.
        members: what `tune` chooses from; empty where there is nothing to choose.
    """

    name: str
    system: System
    kind: Kind = "other"
    needs_text: bool = False
    fingerprint: str | None = None
    members: tuple["Entry", ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, thing: Any) -> "Entry":
        """A system, or a function of `Training` under its own name; optional attributes are read here, and nowhere else.

        Raises:
            InvalidDataError: if it is neither.
        """
        if not isinstance(thing, System):
            if not callable(thing) or isinstance(thing, type):
                raise InvalidDataError(
                    f"{thing!r} is no system: pass a built-in name, an object with `name` and `fit(training)`, or a function."
                )
            thing = FunctionSystem(getattr(thing, "__name__", type(thing).__name__), thing)
        optional = {key: getattr(thing, key) for key in ("kind", "needs_text", "fingerprint") if hasattr(thing, key)}
        return cls(thing.name, thing, **optional)

    def fit(self, training: Training) -> Ranker:
        """Fit the system."""
        return Ranker.of(self.system.fit(training))


def support_matrix(supports: Supports, n_items: int, fade: float | None = None) -> sp.csr_matrix:
    """Supports as rows of a sparse matrix; with `fade`, an item `a` steps older than the last weighs exp(-a / fade)."""
    sizes = np.array([len(s) for s in supports], np.int64)
    offsets = np.concatenate([[0], sizes.cumsum()]).astype(np.int64)
    columns: Int64[np.ndarray, " rows"] = np.concatenate([*supports, np.empty(0, np.int64)]).astype(np.int64)
    ages = np.repeat(offsets[1:], sizes) - 1 - np.arange(offsets[-1])
    values = np.ones(len(columns)) if fade is None else np.exp(-ages / fade)
    matrix = sp.csr_matrix((values.astype(np.float32), columns, offsets), (len(supports), n_items))
    matrix.sort_indices()
    return matrix


def padded(supports: Supports, **columns: Any) -> Histories:
    """Supports as tensors; `columns` as for `Histories.padded`."""
    rows = np.concatenate([*supports, np.empty(0, np.int64)]).astype(np.int64)
    return Histories.padded(rows, np.array([len(one) for one in supports], np.int64), **columns)
