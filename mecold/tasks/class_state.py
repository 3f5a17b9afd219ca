"""What classification hands out: states that belong to the caller, and answers. No behaviour beyond bytes and JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from mecold.errors import InvalidDataError, few
from mecold.portable import Portable, finite


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
class ClassState(Portable):
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

    arrays: ClassVar[Mapping[str, str]] = {
        "weight": "<f4",
        "bias": "<f4",
        "scale": "<f4",
        "shots": "<i8",
        "named": "|b1",
    }

    def __len__(self) -> int:
        """Number of classes, without known ones."""
        return len(self.labels)

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
        arrays = {name: getattr(self, name)[rows] for name in self.arrays}
        return self._with(tuple(self.labels[row] for row in rows), arrays)

    def joined(self, other: "ClassState") -> "ClassState":
        """The classes of both, which one classifier made."""
        arrays = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.arrays}
        return self._with(self.labels + other.labels, arrays)

    def _with(self, labels: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> "ClassState":
        found: dict[str, Any] = {"labels": labels, **arrays}
        return replace(self, **found)

    @classmethod
    def _read(cls, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        labels = tuple(found["labels"])
        if not labels or not all(isinstance(label, str) for label in labels):
            raise TypeError("labels hold something that is no text")
        if any(len(array) != len(labels) for name, array in arrays.items() if name != "weight"):
            raise ValueError("the arrays are not as long as the labels")
        finite(arrays)
        weight = arrays["weight"].reshape(len(labels), -1)
        rest = {"beside_known": bool(found["beside_known"]), "model": str(found["model"])}
        return {**arrays, "weight": weight, "labels": labels, **rest}
