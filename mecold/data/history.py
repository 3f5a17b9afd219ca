"""One user's history, as a caller hands it in: a list of item ids or `Interaction`s, read as strictly as a frame.

What comes out is what a frame of the same rows gives. The way of one user touches no polars.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from mecold.data.catalog import Catalog
from mecold.data.events import Events
from mecold.data.histories import Histories
from mecold.data.interactions import OnUnknown
from mecold.errors import InvalidDataError
from mecold.types import Interaction, ItemId
from mecold.values import word

_LARGEST = float(np.finfo(np.float32).max)
_NUMBERS: Any = (float, int, np.integer, np.floating)
_ZONE = re.compile(r" ?(UTC|GMT)$")


class Told(NamedTuple):
    """One user's history.

    Args:
        support: what is known; a row from the size of the catalogue on is a text, counted from there.
        unknown: items that are not in the catalogue.
        texts: of the things that are described.
    """

    support: Histories
    unknown: tuple[ItemId, ...]
    texts: tuple[str, ...]


def read_history(
    source: object,
    catalog: Catalog,
    on_unknown: OnUnknown,
    events: Events | None = None,
    liked_from: float | None = None,
) -> Told:
    """One user's history, the items of it that are not in the catalogue, and its texts.

    A rating makes the label where `liked_from` says how, unless the row has a label of its own.
    """
    word(on_unknown, ("raise", "drop"), "on_unknown")
    if isinstance(source, set | frozenset):
        raise InvalidDataError("The history is a set, which has no order; pass a list, oldest first.")
    if isinstance(source, str | bytes):
        raise InvalidDataError(f"The history is the text {source[:40]!r}; pass a list of item ids.")
    if not isinstance(source, Iterable) or isinstance(source, Mapping) or hasattr(source, "columns"):
        raise InvalidDataError(
            f"The history is a {type(source).__name__}; pass a list of item ids or of Interaction(item, label, time, weight, "
            "rating=...). Frames go to adapt_users."
        )
    given = [_checked(one, place) for place, one in enumerate(source)]
    catalog.checked([row.item for row in given if row.text is None], "history")
    timed = sum(row.time is not None for row in given)
    if timed not in (0, len(given)):
        raise InvalidDataError(
            f"{timed:,} of {len(given):,} interactions have a time: give one to all, or to none (the order of the list "
            "counts then)."
        )
    if timed:
        given.sort(key=lambda row: row.time or 0.0)
    first = _distinct(given, events)
    items = [row.item for row in first.values() if row.text is None]
    unknown = () if on_unknown == "raise" else tuple(item for item in items if item not in catalog)
    aside = set(unknown)
    known = [row for row in first.values() if row.item not in aside]
    rows, texts = _rows(known, catalog, len(items))
    numbers = np.array(
        [(row.label, row.weight, row.time if timed else None, row.rating) for row in known],
        np.float64,  # NaN where there is none
    )
    labels, weights, times, ratings = numbers.reshape(-1, 4).T
    below = False if liked_from is None else ratings < liked_from
    labels = np.where(np.isnan(labels), np.where(below, -1.0, 1.0), labels)
    kinds = None if events is None else np.array([events.place(row.event) for row in known], np.int64)
    repeats = since = None
    if len(first) < len(given) or (events is not None and events.goals):
        repeats, since = _came([row for row in given if row.item not in aside], known, events)
    support = Histories.padded(
        rows, np.array([len(rows)]), labels=labels, weights=weights, times=times, kinds=kinds, repeats=repeats, since=since,
        goals=0 if events is None else events.goals, ratings=None if np.isnan(ratings).all() else ratings,
    )  # fmt: skip
    return Told(support, unknown, texts)


def _rows(
    known: Sequence[Interaction], catalog: Catalog, items: int
) -> tuple[Int64[np.ndarray, " rows"], tuple[str, ...]]:
    """A row for each interaction, those of texts behind the catalogue's; and the texts."""
    texts = tuple(row.text for row in known if row.text is not None)
    described = np.array([row.text is not None for row in known], bool)
    rows = np.empty(len(known), np.int64)
    rows[~described] = catalog.rows([row.item for row in known if row.text is None], f"the user's {items:,} items")
    rows[described] = catalog.size + np.arange(len(texts))
    return rows, texts


def _key(row: Interaction) -> Hashable:
    """What makes two rows the same thing: an item, or a text."""
    return row.item if row.text is None else (row.text,)


def _came(
    given: Sequence[Interaction], known: Sequence[Interaction], events: Events | None
) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]:
    """How often each known item came, as an event that is predicted; and how many such rows came after the last of them."""
    goals = events.goals if events is not None and events.goals else None
    found: dict[Hashable, tuple[int, int]] = {}
    after = 0
    for row in reversed(given):
        goal = goals is None or (events is not None and events.place(row.event) < goals)
        times, since = found.get(_key(row), (0, after))
        found[_key(row)] = (times + 1, since if times else after) if goal else (times, since)
        after += goal
    both = np.array([found[_key(row)] for row in known], np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _distinct(given: Sequence[Interaction], events: Events | None) -> dict[Hashable, Interaction]:
    """Each item and text once, in order: as it came first; with kinds of events as it came last, as the strongest of them."""
    found: dict[Hashable, Interaction] = {}
    if events is None:
        for row in given:
            found.setdefault(_key(row), row)
        return found
    events.check(row.event for row in given if row.event is not None)
    for row in given:
        before = found.pop(_key(row), row)
        found[_key(row)] = row._replace(event=min(before.event, row.event, key=events.place))
    return found


def _checked(one: Any, place: int) -> Interaction:
    told = isinstance(one, Interaction)
    row = one if told else Interaction(one)
    if isinstance(row.item, np.generic):  # ids out of a numpy array: back to plain Python, as JSON needs them
        row = row._replace(item=row.item.item())
    if row.text is not None:
        row = _described(row, place)
    elif type(row.item) not in (str, int) or row.item == "":
        raise InvalidDataError(
            f"Row {place} of the history is {str(row.item)[:60]!r} of type {type(row.item).__name__}, which is no item id: "
            "pass ids, strings or integers, or Interaction(item, label, time, weight)."
        )
    if not told:  # a bare id: all else is as it should be
        return row
    if row.time is not None and not isinstance(row.time, float | int):
        row = row._replace(time=_seconds(row.time))
    if row.event is not None and not isinstance(row.event, str):
        raise InvalidDataError(f"{row} must have a text as its event, such as 'purchase', or None.")
    if row.rating is not None and not _is_float32(row.rating):
        raise InvalidDataError(f"{row} must have a finite rating, or None where there is none.")
    label = 1.0 if row.label is None else row.label
    numbers = (label, row.weight, row.time or 0.0)
    if not (all(map(_is_float32, numbers)) and np.float32(row.weight) > 0 and abs(label) <= 1):
        raise InvalidDataError(
            f"{row} must have a finite label from -1 (disliked) to 1 (liked), a finite time if any, and a positive, finite "
            "weight. Ratings go into Interaction(item, rating=...)."
        )
    return row


def _described(row: Interaction, place: int) -> Interaction:
    """A row of a thing that is not in the catalogue, its text with single spaces, as the texts of items have."""
    text = plain_text(row.text, f"Row {place} of the history")
    if row.item != "" or row.rating is not None:
        extra = (
            "a rating, but ratings are read of items alone: say label=..."
            if row.item == ""
            else f"the id {row.item!r} too"
        )
        raise InvalidDataError(f"Row {place} of the history has a text, {text[:60]!r}, and {extra}; pass one of both.")
    return row._replace(text=text)


def plain_text(text: object, what: str) -> str:
    """A text with control characters and runs of white space turned into one space.

    Args:
        text: what a caller handed in.
        what: it is, in messages.

    Raises:
        InvalidDataError: if it is no text, or there is nothing in it.
    """
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text).strip() if isinstance(text, str) else ""
    if not plain:
        raise InvalidDataError(
            f"{what} has the text {str(text)[:60]!r} of type {type(text).__name__}; pass words that describe it."
        )
    return plain


def _seconds(time: object) -> Any:
    """A date or datetime as the seconds that frames make of it, without a zone in UTC; anything else as it is."""
    if time != time:  # NaT, of whatever library
        return np.nan
    if isinstance(time, np.datetime64):
        time = time.astype("datetime64[us]").item()
    if isinstance(time, str):
        return _of_text(time)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, date):
        return datetime(time.year, time.month, time.day, tzinfo=UTC).timestamp()
    return time


def _of_text(time: str) -> Any:
    """A time that is written as a number, or as 2024-01-31 or 2024-01-31T23:59:59Z; any other text as it is."""
    with suppress(ValueError):
        return float(time)
    with suppress(ValueError):
        return _seconds(datetime.fromisoformat(_ZONE.sub("+00:00", time)))
    return time


def _is_float32(number: Any) -> bool:
    """True for a number that is finite where it is stored."""
    return isinstance(number, _NUMBERS) and bool(abs(number) <= _LARGEST)  # False for NaN too
