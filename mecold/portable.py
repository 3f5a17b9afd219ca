"""States that belong to callers: frozen records of arrays and a few plain fields, to JSON and bytes and back. No pickle."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from mecold.errors import InvalidDataError

P = TypeVar("P", bound="Portable")


@dataclass(frozen=True, eq=False)
class Portable:
    """Base of states. A subclass names its arrays in `arrays`, and says in `_read` how plain fields are read and checked."""

    arrays: ClassVar[Mapping[str, str]] = {}
    """Field -> numpy type as it is written, little-endian; such a field becomes a read-only copy of that type."""

    def __post_init__(self) -> None:
        for name, kind in self.arrays.items():
            array = np.array(getattr(self, name), dtype=np.dtype(kind).newbyteorder("="))
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        """Equal when every field is, the numbers bit for bit."""
        return self._all() == other._all() if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._all())

    def to_json(self) -> str:
        """The state as JSON text; `from_json` returns an equal state."""
        return json.dumps({field.name: self._written(field.name) for field in fields(self)})

    @classmethod
    def from_json(cls: type[P], text: str | bytes) -> P:
        """Read a state written by `to_json`.

        Raises:
            InvalidDataError: if the text is not such a state.
        """
        try:
            found = json.loads(text)
            arrays = {
                name: np.frombuffer(base64.b64decode(found[name], validate=True), dtype=kind)
                for name, kind in cls.arrays.items()
            }
            return cls(**cls._read(found, arrays))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidDataError(
                f"This is not a saved {cls.__name__}: {error!r}. Pass what `to_json()` returned."
            ) from error

    def to_bytes(self) -> bytes:
        """The state as UTF-8 bytes of its JSON: small, portable, and safe to read from strangers."""
        return self.to_json().encode()

    @classmethod
    def from_bytes(cls: type[P], data: bytes) -> P:
        """Read a state written by `to_bytes`."""
        return cls.from_json(data)

    @classmethod
    def _read(cls, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Every field out of JSON values and flat arrays.

        Raises:
            ValueError: or KeyError or TypeError, where they do not fit together.
        """
        raise NotImplementedError

    def _written(self, name: str) -> Any:
        value = getattr(self, name)
        kind = self.arrays.get(name)
        if kind is not None:
            return base64.b64encode(value.astype(kind).tobytes()).decode()
        return list(value) if isinstance(value, tuple) else value

    def _all(self) -> tuple[object, ...]:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return tuple((value.shape, value.tobytes()) if name in self.arrays else value for name, value in values)


def finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse numbers that are not finite.

    Raises:
        ValueError: naming the arrays that hold them.
    """
    if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValueError(f"{', '.join(bad)} hold what is not finite")


def ids_in(found: Mapping[str, Any], name: str) -> tuple[str | int, ...]:
    """A field of ids.

    Raises:
        TypeError: if it holds anything else.
    """
    ids = tuple(found[name])
    if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in ids):
        raise TypeError(f"{name} holds something that is no id")
    return ids


def count_in(found: Mapping[str, Any], name: str) -> int:
    """A field that counts something.

    Raises:
        TypeError: if it is no whole number.
        ValueError: if it is negative.
    """
    count = found[name]
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} is no whole number")
    if count < 0:
        raise ValueError(f"{name} is negative")
    return count
