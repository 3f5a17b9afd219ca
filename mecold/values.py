"""Plain values at the door: each function returns the value as it is used inside, or says what it should have been."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mecold.errors import InvalidDataError

T = TypeVar("T")

_MOST = 2**31 - 1


def whole(value: object, name: str, least: int = 1, most: int = _MOST) -> int:
    """A whole number as Python's own; one that is larger than any use counts as the largest.

    Raises:
        InvalidDataError: if it is none, or too small.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
        kind = {0: "an integer of 0 or more", 1: "a positive integer"}.get(least, f"an integer of {least} or more")
        raise InvalidDataError(f"{name}={value!r:.60} must be {kind}.")
    return min(int(value), most)


def number(value: object, name: str, low: float | int, high: float | int) -> float:
    """A number in a range, both ends included.

    Raises:
        InvalidDataError: if it is none, not finite, or outside.
    """
    plain = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_ | np.complexfloating)
    if not plain or not low <= value <= high:  # type: ignore[operator]
        raise InvalidDataError(f"{name}={value!r:.60} must be a number between {low:g} and {high:g}.")
    return float(value)  # type: ignore[arg-type]


def word(value: T, words: Sequence[str], name: str) -> T:
    """One of a few words.

    Raises:
        InvalidDataError: if it is none of them, naming all.
    """
    if not isinstance(value, str) or value not in words:
        raise InvalidDataError(f"{name}={value!r:.60} must be {' or '.join(map(repr, words))}.")
    return value


def flag(value: object, name: str) -> bool:
    """True or False.

    Raises:
        InvalidDataError: if it is anything else, such as a text that says so.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidDataError(f"{name}={value!r:.60} must be True or False.")
    return bool(value)


def path(value: object, name: str) -> Path:
    """The path of a file or folder.

    Raises:
        InvalidDataError: if it is neither a text nor a path.
    """
    plain = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    odd = not isinstance(plain, str) or "\0" in plain or any("\ud800" <= letter <= "\udfff" for letter in plain)
    if odd or any(len(os.fsencode(part)) > 255 for part in Path(str(plain)).parts):
        raise InvalidDataError(f"{name}={value!r:.60} must be a path, as text or pathlib.Path.")
    return Path(str(plain))


def table(value: object, name: str, meaning: str) -> Mapping[str, Any]:
    """A mapping whose keys are texts.

    Raises:
        InvalidDataError: if it is none.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidDataError(f"{name}={value!r:.60} must be a mapping of {meaning}, such as {{'a': 'b'}}.")
    return value


def texts(value: object, name: str) -> tuple[str, ...]:
    """A few texts, such as names of columns.

    Raises:
        InvalidDataError: if it is one text, or no list of texts.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise InvalidDataError(f"{name}={value!r:.60} must be a list or tuple of texts, such as ('a', 'b').")
    return tuple(value)


def instance(value: T, kind: type | tuple[type, ...], name: str, way_out: str) -> T:
    """A record of a kind, or None.

    Raises:
        InvalidDataError: if it is something else.
    """
    if value is not None and not isinstance(value, kind):
        raise InvalidDataError(f"{name} is a {type(value).__name__}; {way_out}.")
    return value


def generator(value: object) -> np.random.Generator:
    """The generator of a seed, or the one that is handed in.

    Raises:
        InvalidDataError: if it is neither.
    """
    if value is None or isinstance(value, np.random.Generator):
        return np.random.default_rng(value)
    return np.random.default_rng(whole(value, "rng", 0, 2**63 - 1))
