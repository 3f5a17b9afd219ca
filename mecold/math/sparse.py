"""Sparse matrices on any device, times dense ones, from both sides."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag


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
        return embedding_bag(
            self.columns, dense, self.offsets, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )

    @cached_property
    def T(self) -> "Sparse":  # noqa: N802 (as in numpy and torch)
        """The transposed matrix; kept, since products with both take turns."""
        return Sparse.of(self._scipy().T.tocsr(), self.values.device)

    def gram(self) -> Float[Tensor, "columns columns"]:
        """The product of the transposed matrix with this one, as a dense matrix."""
        rows = self._scipy()
        return torch.from_numpy((rows.T @ rows).toarray()).to(self.values.device)

    def squares(self) -> Float[Tensor, " columns"]:
        """Sum of squares of each column: the diagonal of the Gram matrix."""
        return self.values.new_zeros(self.width).index_add_(0, self.columns.long(), self.values.square())

    def _scipy(self) -> sp.csr_matrix:
        values, columns, offsets = (part.cpu().numpy() for part in (self.values, self.columns, self.offsets))
        return sp.csr_matrix((values, columns, offsets), (len(self), self.width))
