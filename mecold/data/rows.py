"""Records of tensors that share their rows: one base for what is taken, joined and moved field by field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

R = TypeVar("R", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """A frozen dataclass whose tensors, and records of tensors, all have the same rows; other fields are left alone."""

    def __len__(self) -> int:
        return len(next(iter(self._tensors().values())))

    def __getitem__(self: R, rows: slice | Tensor) -> R:
        return self.take(rows)

    def map(self: R, change: Callable[[Tensor], Tensor]) -> R:
        """The same record with every tensor changed."""

        def changed(value: Tensor | Rows) -> Any:
            return value.map(change) if isinstance(value, Rows) else change(value)

        return replace(self, **{name: changed(value) for name, value in self._tensors().items()})

    def take(self: R, rows: slice | Tensor) -> R:
        """These rows, in this order."""
        return self.map(lambda tensor: tensor[rows])

    def to(self: R, device: torch.device) -> R:
        """The same record on another device."""
        return self.map(lambda tensor: tensor.to(device))

    @classmethod
    def join(cls: type[R], parts: Sequence[R]) -> R:
        """The rows of all parts, one after the other.

        Raises:
            ValueError: if there is no part, or a field is wider in one part than in another.
        """
        if not parts:
            raise ValueError("There is nothing to join.")

        def joined(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return type(values[0]).join(values) if isinstance(values[0], Rows) else torch.cat(values)

        return replace(parts[0], **{name: joined(name) for name in parts[0]._tensors()})

    def _tensors(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor | Rows)}


def appended(old: Tensor, more: Tensor) -> Tensor:
    """The rows of `old`, then those of `more`; in time of `more` alone, now and then of both.

    Rows go behind those that are there, in memory kept for them; who holds `old` does not see them. Where somebody else
    has appended to `old` before, everything is copied. For one writer at a time.
    """
    size, base = len(old), old._base
    total = size + len(more)
    with torch.no_grad():
        fits = base is not None and getattr(base, "used_rows", None) == size and total <= len(base)
        if not fits or base is None:
            base = torch.empty((total + total // 4 + 16, *old.shape[1:]), dtype=old.dtype, device=old.device)
            base[:size] = old
        base[size:total] = more
        base.used_rows = total  # type: ignore[attr-defined]
        return base[:total]
