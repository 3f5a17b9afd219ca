"""Sparse matrices on any device, times dense ones, from both sides."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

MOST_PAIRS = 1 << 28
"""So many products of two entries are added up to make one matrix of two, which takes some seconds."""

_DENSER = 2  # times the entries of both: one matrix is still faster, its rows being few and near each other
_AT_ONCE = 1 << 27  # numbers between two products, 512 MB


@runtime_checkable
class Products(Protocol):
    """A matrix that is known by its products."""

    def __matmul__(self, dense: Float[Tensor, "columns some"], /) -> Float[Tensor, "rows some"]:
        """The product with a dense matrix."""
        ...

    @property
    def T(self) -> "Products":  # noqa: N802 (as in numpy and torch)
        """The transposed matrix."""
        ...


@runtime_checkable
class Tall(Protocol):
    """A matrix of many rows, of which no more is asked than what its columns have in common."""

    @property
    def width(self) -> int:
        """Number of columns."""
        ...

    @property
    def device(self) -> torch.device:
        """Where products are made."""
        ...

    def inner(self) -> Products:
        """The Gram matrix, by its products."""
        ...

    def gram(self) -> Float[Tensor, "columns columns"]:
        """The Gram matrix."""
        ...

    def squares(self) -> Float[Tensor, " columns"]:
        """Its diagonal."""
        ...


@dataclass(frozen=True)
class Sparse:
    """A matrix in compressed rows.

    torch's own sparse products take three times as long on a CPU; a sum of weighted rows is what `embedding_bag` is made for.

    Args:
        columns: of the entries, row after row.
        offsets: where each row starts and ends.
        values: of the entries.
        width: number of columns.
    """

    columns: Int[Tensor, " entries"]
    offsets: Int[Tensor, " rows_plus_one"]
    values: Float[Tensor, " entries"]
    width: int

    @classmethod
    def of(cls, matrix: sp.csr_matrix, device: torch.device) -> "Sparse":
        """A matrix of scipy's."""
        kind = np.int64 if matrix.nnz >= 2**31 else np.int32
        parts = (matrix.indices.astype(kind), matrix.indptr.astype(kind), matrix.data.astype(np.float32))
        columns, offsets, values = (torch.from_numpy(part).to(device) for part in parts)
        return cls(columns, offsets, values, matrix.shape[1])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __matmul__(self, dense: Float[Tensor, "columns some"]) -> Float[Tensor, "rows some"]:
        """The product with a dense matrix."""
        if not len(self.columns):  # it takes no table of bags that are all empty
            return dense.new_zeros(len(self), dense.shape[1])
        dense = dense.contiguous()  # whose columns lie apart, as those of a QR, would take fifty times as long
        return embedding_bag(
            self.columns, dense, self.offsets, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )

    @cached_property
    def T(self) -> "Sparse":  # noqa: N802 (as in numpy and torch)
        """The transposed matrix; kept, since products with both take turns."""
        return Sparse.of(self.scipy().T.tocsr(), self.values.device)

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self.values.device

    def inner(self) -> "Cross":
        """The Gram matrix, by its products."""
        return Cross(self, self)

    def gram(self) -> Float[Tensor, "columns columns"]:
        """The product of the transposed matrix with this one, as a dense matrix."""
        rows = self.scipy()
        return torch.from_numpy((rows.T @ rows).toarray()).to(self.values.device)

    def squares(self) -> Float[Tensor, " columns"]:
        """Sum of squares of each column: the diagonal of the Gram matrix."""
        return self.values.new_zeros(self.width).index_add_(0, self.columns.long(), self.values.square())

    def scipy(self) -> sp.csr_matrix:
        """The same matrix, scipy's, on the CPU."""
        values, columns, offsets = (part.cpu().numpy() for part in (self.values, self.columns, self.offsets))
        return sp.csr_matrix((values, columns, offsets), (len(self), self.width))


@dataclass(frozen=True)
class Cross:
    """`left.T @ right`, as far as products with it go: one matrix, where that is cheap to make and not much denser.

    Args:
        left: rows by some columns.
        right: the same rows by other columns, or the same.
    """

    left: Sparse
    right: Sparse

    def __matmul__(self, dense: Float[Tensor, "right some"]) -> Float[Tensor, "left some"]:
        """The product with a dense matrix."""
        if self._whole is not None:
            return self._whole @ dense
        columns = max(1, _AT_ONCE // max(1, len(self.right)))
        return torch.cat([self.left.T @ (self.right @ part) for part in torch.split(dense, columns, dim=1)], dim=1)

    @cached_property
    def T(self) -> "Cross":  # noqa: N802 (as in numpy and torch)
        """The transposed product."""
        other = Cross(self.right, self.left)
        other.__dict__["_whole"] = None if self._whole is None else self._whole.T
        return other

    @cached_property
    def _whole(self) -> Sparse | None:
        pairs = int((self.left.offsets.diff().long() * self.right.offsets.diff().long()).sum())
        if pairs > MOST_PAIRS:
            return None
        found = (self.left.scipy().T @ self.right.scipy()).tocsr()
        small = found.nnz <= _DENSER * (len(self.left.columns) + len(self.right.columns))
        return Sparse.of(found, self.left.values.device) if small else None
