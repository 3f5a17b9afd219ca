"""What is known of the creatives of one place, and what callers tell of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

from mecold.data.frames import FrameLike, id_column, read_frame, require
from mecold.data.impressions import checked_counts
from mecold.errors import InvalidDataError, few
from mecold.lazy import cached_property
from mecold.portable import Portable, finite, ids_in

_NUMBER = (int, float, np.integer, np.floating)


@dataclass(frozen=True, eq=False)
class AdState(Portable):
    """All that is known of the creatives of one place. The caller keeps it; the model keeps nothing.

    Args:
        creatives: ids.
        prior: logit of each beside the place's level, as its text foretells, float64, read-only.
        shown: impressions so far, float64, read-only.
        clicks: clicks so far, float64, read-only.
        model: fingerprint of the model that made it; another model refuses it.
    """

    creatives: tuple[str | int, ...]
    prior: Float64[np.ndarray, " creatives"]
    shown: Float64[np.ndarray, " creatives"]
    clicks: Float64[np.ndarray, " creatives"]
    model: str

    arrays: ClassVar[Mapping[str, str]] = {"prior": "<f8", "shown": "<f8", "clicks": "<f8"}

    @classmethod
    def of(cls, creatives: Sequence[str | int], numbers: Sequence[np.ndarray], model: str) -> "AdState":
        """From `prior`, `shown` and `clicks`, in this order."""
        prior, shown, clicks = numbers
        return cls(tuple(creatives), prior, shown, clicks, model)

    @cached_property
    def place(self) -> dict[str | int, int]:
        """Where each creative stands."""
        return {creative: at for at, creative in enumerate(self.creatives)}

    def rows(self, creatives: Sequence[str | int]) -> Int64[np.ndarray, " some"]:
        """Where some creatives stand.

        Raises:
            InvalidDataError: naming those that are not there.
        """
        found = [self.place.get(one, -1) for one in creatives]
        if missing := [one for one, at in zip(creatives, found, strict=True) if at < 0]:
            raise InvalidDataError(f"The state has no creative {few(list(dict.fromkeys(missing)))}. Add them first.")
        return np.array(found, np.int64)

    @classmethod
    def _read(cls, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        creatives = ids_in(found, "creatives")
        finite(arrays)
        if any(len(one) != len(creatives) for one in arrays.values()):
            raise ValueError("numbers that do not fit the creatives")
        return {**arrays, "creatives": creatives, "model": str(found["model"])}


def read_creatives(source: Mapping[Any, str] | FrameLike) -> tuple[list[str | int], list[str]]:
    """Ids and texts.

    Args:
        source: id -> text, or a frame or path with `creative_id` and `text`.

    Raises:
        InvalidDataError: on missing ids, and texts that say nothing.
    """
    if isinstance(source, Mapping):
        if odd := [one for one, text in source.items() if not isinstance(text, str)]:
            raise InvalidDataError(
                f"{len(odd):,} creatives have something else than a text: {few(odd)}. Give a text each."
            )
        source = pl.DataFrame([_ids(list(source)), pl.Series("text", list(source.values()), dtype=pl.String)])
    frame = read_frame(source, "creatives", names=("creative_id", "text"))
    require(frame, ("creative_id", "text"), "creatives")
    ids = id_column(frame["creative_id"], "creative_id of the creatives").to_list()
    texts = frame["text"].cast(pl.String).fill_null("").to_list()
    if empty := [one for one, text in zip(ids, texts, strict=True) if not text.strip()]:
        raise InvalidDataError(
            f"{len(empty):,} creatives have no text: {few(empty)}. Give them one, or leave them out."
        )
    return ids, texts


def read_counts(source: Mapping[Any, tuple[float, float]] | FrameLike, creatives: Sequence[str | int]) -> pl.DataFrame:
    """Columns `creative_id`, `impressions`, `clicks`.

    Args:
        source: id -> (impressions, clicks), or such a frame or its path.
        creatives: those that are there; ids of a csv are read as theirs are.

    Raises:
        InvalidDataError: on missing ids, and counts that cannot be.
    """
    what, names = "counts", ("impressions", "clicks")
    if isinstance(source, Mapping):
        odd = [
            one for one, counts in source.items()
            if not (isinstance(counts, tuple | list) and len(counts) == 2 and all(isinstance(n, _NUMBER) for n in counts))
        ]  # fmt: skip
        if odd:
            raise InvalidDataError(
                f"{len(odd):,} creatives have no (impressions, clicks): {few(odd)}. Give two numbers each."
            )
        numbers = [
            pl.Series(name, [float(one[at]) for one in source.values()], dtype=pl.Float64)
            for at, name in enumerate(names)
        ]
        source = pl.DataFrame([_ids(list(source)), *numbers])
    kinds = {"creative_id": pl.Int64 if creatives and isinstance(creatives[0], int) else pl.String}
    frame = read_frame(source, what, names=("creative_id", *names), guess=names, ids=kinds)
    require(frame, ("creative_id", *names), what)
    frame = frame.with_columns(id_column(frame["creative_id"], f"creative_id of the {what}"))
    return checked_counts(frame, what)


def _ids(given: Sequence[object]) -> pl.Series:
    """Ids as a column."""
    kinds = {type(one) for one in given}
    if not (kinds <= {str} or kinds <= {int}):
        raise InvalidDataError(f"Ids of creatives are all texts or all integers; these are {few(list(given))}.")
    return pl.Series("creative_id", list(given), dtype=pl.Int64 if kinds == {int} else pl.String)


def twice_in(ids: Sequence[str | int]) -> list[str | int]:
    """Those that stood before."""
    known: set[str | int] = set()
    return [one for one in ids if one in known or known.add(one)]  # type: ignore[func-returns-value]
