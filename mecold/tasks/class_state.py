"""What classification hands out: states that belong to the caller, and answers. No behaviour beyond bytes and JSON."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from mecold.errors import InvalidDataError, few

_ARRAYS = {"weight": "<f4", "bias": "<f4", "scale": "<f4", "shots": "<i8", "named": "|b1"}
"""Arrays of a state, and how they are written."""


class Label(NamedTuple):
    """One class and how probable it is."""

    name: str
    probability: float


@dataclass(frozen=True)
class Classified:
    """What one item is.

    Args:
        labels: the most probable classes, best first.
        none: probability that it is of none of the classes.
    """

    labels: tuple[Label, ...]
    none: float

    @property
    def label(self) -> str | None:
        """The best class; None where "none of these" is more probable than any."""
        return self.labels[0].name if self.labels and self.labels[0].probability >= self.none else None


@dataclass(frozen=True, eq=False)
class ClassState:
    """Classes that a classifier was adapted to. The caller keeps it; it is never changed.

    Args:
        labels: the classes.
        weight: their heads, float32, read-only; all arrays are.
        bias: per class.
        scale: per class.
        shots: examples that were given of each class.
        named: whether the name of a class was read.
        beside_known: whether the known classes are answers too.
        model: fingerprint of the classifier; another one refuses the state.
    """

    labels: tuple[str, ...]
    weight: Float32[np.ndarray, "classes dim"]
    bias: Float32[np.ndarray, " classes"]
    scale: Float32[np.ndarray, " classes"]
    shots: Int64[np.ndarray, " classes"]
    named: Bool[np.ndarray, " classes"]
    beside_known: bool
    model: str

    def __post_init__(self) -> None:
        for name, kind in _ARRAYS.items():
            array = np.array(getattr(self, name), dtype=np.dtype(kind).newbyteorder("="))
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        """Equal when every field is, the numbers bit for bit."""
        return self._all() == other._all() if isinstance(other, ClassState) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._all())

    def __len__(self) -> int:
        """Number of classes, without known ones."""
        return len(self.labels)

    def _all(self) -> tuple[object, ...]:
        arrays = (getattr(self, name).tobytes() for name in _ARRAYS)
        return self.labels, self.beside_known, self.model, *arrays

    def without(self, labels: Iterable[str]) -> "ClassState":
        """The state without some classes; scores of the others stay as they are.

        Raises:
            InvalidDataError: if a label is not in the state, or none would be left.
        """
        gone = [labels] if isinstance(labels, str) else list(labels)
        if missing := [one for one in gone if one not in self.labels]:
            raise InvalidDataError(f"{len(missing):,} labels are not in this state: {few(missing)}.")
        rows = [row for row, label in enumerate(self.labels) if label not in gone]
        if not rows:
            raise InvalidDataError(f"Without {few(gone)} no class is left in this state.")
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return self._with(tuple(self.labels[row] for row in rows), arrays)

    def joined(self, other: "ClassState") -> "ClassState":
        """The classes of both, which one classifier made."""
        arrays = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS}
        return self._with(self.labels + other.labels, arrays)

    def _with(self, labels: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> "ClassState":
        weight, bias, scale, shots, named = (arrays[name] for name in _ARRAYS)
        return ClassState(labels, weight, bias, scale, shots, named, self.beside_known, self.model)

    def to_json(self) -> str:
        """The state as JSON text; `from_json` returns an equal state."""
        arrays = {
            name: base64.b64encode(getattr(self, name).astype(kind).tobytes()).decode()
            for name, kind in _ARRAYS.items()
        }
        rest = {"beside_known": self.beside_known, "model": self.model}
        return json.dumps({"labels": list(self.labels), **arrays, **rest})

    @classmethod
    def from_json(cls, text: str | bytes) -> "ClassState":
        """Read a state written by `to_json`.

        Raises:
            InvalidDataError: if the text is not such a state.
        """
        try:
            fields = json.loads(text)
            arrays = {
                name: np.frombuffer(base64.b64decode(fields[name], validate=True), dtype=kind)
                for name, kind in _ARRAYS.items()
            }
            labels = tuple(fields["labels"])
            if not labels or not all(isinstance(label, str) for label in labels):
                raise TypeError("labels hold something that is no text")
            if any(len(arrays[name]) != len(labels) for name in _ARRAYS if name != "weight"):
                raise ValueError("the arrays are not as long as the labels")
            if not all(np.isfinite(arrays[name]).all() for name in ("weight", "bias", "scale")):
                raise ValueError("the arrays hold what is not finite")
            arrays["weight"] = arrays["weight"].reshape(len(labels), -1)
            weight, bias, scale, shots, named = (arrays[name] for name in _ARRAYS)
            beside, model = bool(fields["beside_known"]), str(fields["model"])
            return cls(labels, weight, bias, scale, shots, named, beside, model)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidDataError(
                f"This is not a saved ClassState: {error!r}. Pass what `to_json()` returned."
            ) from error

    def to_bytes(self) -> bytes:
        """The state as UTF-8 bytes of its JSON: portable, and safe to read from strangers."""
        return self.to_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "ClassState":
        """Read a state written by `to_bytes`."""
        return cls.from_json(data)
