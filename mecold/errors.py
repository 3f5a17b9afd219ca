"""Errors and warnings: each says what was wrong, how much of it, and the way out.

Every error also subclasses the builtin that a caller would expect, so that `except ValueError` keeps working.
"""

from collections.abc import Iterable, Sized


class MecoldError(Exception):
    """Base of every error that mecold raises on purpose."""


class InvalidDataError(MecoldError, ValueError):
    """A frame, a text, a label or a setting that mecold cannot use."""


class UnknownItemError(MecoldError, KeyError):
    """Items that are not in the catalogue."""

    def __str__(self) -> str:
        """The message as written; a plain KeyError would print its repr."""
        return str(self.args[0])


class NotFittedError(MecoldError, RuntimeError):
    """The recommender has no model yet: call `fit_meta` or `load` first."""


class EncoderError(MecoldError, RuntimeError):
    """An encoder that cannot be found, read, or that does not fit the model."""


class ModelFileError(MecoldError, ValueError):
    """A saved model that is missing, damaged, changed, or written by a newer version."""


class DataWarning(UserWarning):
    """Input that mecold set aside or changed, with counts."""


def few(values: Iterable[object], limit: int = 3) -> str:
    """The first values as text, and how many more there are: `'a', 'b', 'c' and 4 more`."""
    listed = values if isinstance(values, Sized) else list(values)
    shown = [repr(value) for value, _ in zip(listed, range(limit), strict=False)]
    rest = len(listed) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")
