"""Errors and warnings: each says what was wrong, how much of it, and the way out.

Every error also subclasses the builtin that a caller would expect, so that `except ValueError` keeps working.
"""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager

_LONGEST = 1500  # characters of a message


class MecoldError(Exception):
    """Base of every error that mecold raises on purpose. A message is never long, whatever the caller's ids are like."""

    def __str__(self) -> str:
        """The message as written; of one that is too long the beginning, and the end, where the way out stands."""
        text = str(self.args[0]) if self.args else ""
        return text if len(text) <= _LONGEST else f"{text[:800]} [...] {text[-600:]}"


class InvalidDataError(MecoldError, ValueError):
    """A frame, a text, a label or a setting that mecold cannot use."""


class UnknownItemError(MecoldError, KeyError):
    """Items that are not in the catalogue."""


class UnknownUserError(MecoldError, KeyError):
    """Users who are not in the model's log."""


class NotFittedError(MecoldError, RuntimeError):
    """The recommender has no model yet: call `fit_meta` or `load` first."""


class EncoderError(MecoldError, RuntimeError):
    """An encoder that cannot be found, read, or that does not fit the model."""


class ModelFileError(MecoldError, ValueError):
    """A saved model that is missing, damaged, changed, or written by a newer version."""


class ForkError(MecoldError, RuntimeError):
    """What cannot work in a process that was forked: see docs/serving.md."""


class DataWarning(UserWarning):
    """Input that mecold set aside or changed, with counts."""


def few(values: Iterable[object], limit: int = 3) -> str:
    """The first values as text, and how many more there are: `'a', 'b', 'c' and 4 more`."""
    listed = values if isinstance(values, Sized) else list(values)
    shown = [_short(repr(value)) for value, _ in zip(listed, range(limit), strict=False)]
    rest = len(listed) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def _short(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[: limit - 4]}...{text[-1]}"


def told(error: BaseException) -> str:
    """What an error of another library says, in one line and shortened."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {_short(lines[0], 300)}" if lines else type(error).__name__


@contextmanager
def foreign(kind: type[MecoldError], what: str, way_out: str) -> Iterator[None]:
    """The boundary to another library: whatever it raises in here comes out as one of mecold's own errors.

    Args:
        kind: the error that comes out.
        what: what was not possible, the beginning of the message.
        way_out: what the caller can do, the end of the message.
    """
    try:
        yield
    except MecoldError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # polars' is no Exception
            raise
        raise kind(f"{what}: {told(error)}. {way_out}") from error
