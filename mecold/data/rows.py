"""Records of tensors that share their rows: one base for what is taken, joined and moved field by field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """A frozen dataclass whose tensors, and records of tensors, all have the same rows; other fields are left alone."""

    def __len__(self) -> int:
        return len(next(iter(self._tensors().values())))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return self.take(rows)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same record with every tensor changed."""

        def changed(value: Tensor | Rows) -> Any:
            return value.map(change) if isinstance(value, Rows) else change(value)

        return replace(self, **{name: changed(value) for name, value in self._tensors().items()})

    def take(self, rows: slice | Tensor) -> Self:
        """These rows, in this order."""
        return self.map(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> Self:
        """The same record on another device."""
        return self.map(lambda tensor: tensor.to(device))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
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
