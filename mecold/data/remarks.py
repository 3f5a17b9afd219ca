"""What looks odd in a log, and what was read of it, in sentences: nothing is changed here."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Float32

from mecold.data.events import Events
from mecold.data.frames import INTERACTION_NAMES, told_columns
from mecold.errors import DataWarning, few

ORDERS: tuple[Literal["timestamp", "position"], ...] = ("timestamp", "position")
"""Columns that order a history, the best first."""

_LIKE_TIMES = ("time", "ts", "date", "datetime", "timestamp", "event_time", "created_at", "order", "step")
_ODD_SHARE, _MANY_ROWS, _FEW_USERS = 0.2, 100, 20  # a user with more than that of a log of more users is remarked on
_MARKERS = ("nan", "NaN", "none", "None", "null", "NULL", "NA", "N/A", "<NA>", "\\N")


def tell_of_times(frame: pl.DataFrame) -> None:
    """Warn where nothing orders the histories, but a column looks as if it could."""
    if any(name in frame.columns for name in ORDERS):
        return
    alike = [name for name in frame.columns if name.lower() in _LIKE_TIMES]
    if alike:
        warnings.warn(
            f"Interactions: no `timestamp` and no `position`, so that histories are shuffled; {few(alike)} looks like one. "
            f"Map it: interaction_columns={{'timestamp': {alike[0]!r}}} or --column timestamp={alike[0]}.",
            DataWarning, stacklevel=4,
        )  # fmt: skip


def scale_of(ratings: Float32[np.ndarray, " distinct"]) -> tuple[str, float]:
    """A rating scale in words, and from where on it usually says that something was liked."""
    low, high, steps = float(ratings[0]), float(ratings[-1]), set(np.unique(np.mod(ratings, 1)).tolist())
    if len(ratings) == 2 and (low, high) in ((-1.0, 1.0), (0.0, 1.0)):
        return f"Thumbs ({low:g} and {high:g} in `rating`)", 1.0
    size = "half stars" if steps == {0.0, 0.5} else "whole numbers" if steps == {0.0} else "numbers"
    top = 5.0 if low >= 0 and 1 < high <= 5 else 10.0 if low >= 0 and 5 < high <= 10 else high
    mark = {5.0: 4.0, 10.0: 7.0}.get(top, float(np.median(ratings)))
    return f"Ratings from {low:g} to {high:g} ({size})", mark


def columns_read(frame: pl.DataFrame, log: pl.DataFrame, context: Sequence[str] = ()) -> str:
    """Which columns were read, and what orders the histories."""
    order = next((name for name in ORDERS if name in log.columns), None)
    behind = {"position"} if order == "timestamp" else set()
    behind |= {"rating"} if "label" in log.columns else set()
    used: dict[str, Any] = {
        name: log[name].dtype
        for name in INTERACTION_NAMES
        if name in log.columns and name in frame.columns and name not in behind
    }
    used |= {name: "times" for name in used if frame[name].dtype.is_temporal()}
    used |= {"event": "names"} if "event" in used else {}
    used |= dict.fromkeys(context, "context")
    line = told_columns("Interactions", frame, used)
    return line + (
        "" if order else " No timestamp or position: histories are in a fixed shuffle, not in order of time."
    )


def kinds_read(events: Events) -> list[str]:
    """Which kinds of events there are, in order, and what is predicted."""
    if not events.names:
        return []
    what = few(events.names[: events.goals], 32) if events.goals else "all of them; MetaConfig(predict=...) says which"
    return [f"Events, the strongest first: {few(events.names, 32)}. Predicted: {what}."]


def users_like_none(users: pl.Series) -> list[str]:
    """A word on user ids that look like what programs write where there is none."""
    if users.dtype != pl.String:
        return []
    odd = users.filter(users.is_in(list(_MARKERS)))
    if not len(odd):
        return []
    names = odd.unique(maintain_order=True).to_list()
    return [f"{len(odd):,} rows are of the user {few(names)}, which looks like a missing id; each counts as one user"]


def busiest_user(users: pl.Series) -> list[str]:
    """A word on a user with so much of a log that this may be no user."""
    counts = users.value_counts(sort=True, name="rows")
    if counts.height <= _FEW_USERS:
        return []
    rows = counts["rows"][0]
    if rows <= _MANY_ROWS or rows <= _ODD_SHARE * len(users):
        return []
    return [f"One user has {rows / len(users):.0%} of the log ({rows:,} of {len(users):,} rows): is that one person?"]
