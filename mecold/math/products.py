"""Products of tall matrices of float32, on a CPU by whichever library of torch's is faster: they are most of a fit's time.

torch leaves float32 to MKL, which has no kernels for AVX-512 on processors that are not Intel's; oneDNN, which comes with torch,
has. It is asked by the operator that compiled models call. Whether that is there, and as exact as float32 is, is looked at
once, by a product whose result is known; otherwise torch does what it does.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST_ROWS = 8  # of fewer, memory is what takes time, and both are level
_TRUE_TO = 1e-5  # of the largest result


def product(rows: Float[Tensor, "rows width"], others: Float[Tensor, "others width"]) -> Float[Tensor, "rows others"]:
    """`rows @ others.T`; differentiable."""
    return beside(rows, [others])


def beside(rows: Float[Tensor, "rows width"], parts: Sequence[Tensor]) -> Float[Tensor, "rows others"]:
    """`rows @ torch.cat(parts, 1).T` without laying the parts side by side; differentiable.

    Args:
        rows: one side.
        parts: the other side, in parts of its width.
    """
    if not _by_onednn(rows):
        return _summed(rows, parts, _plain)
    if torch.is_grad_enabled() and (rows.requires_grad or any(part.requires_grad for part in parts)):
        found: Tensor = _Beside.apply(rows, *parts)  # type: ignore[no-untyped-call]
        return found
    return _forward(rows, parts)


class _Beside(torch.autograd.Function):
    """The same with gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(rows, *parts)
        return _forward(rows, parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (rows, *parts) = grads, ctx.saved_tensors
        of_rows, *of_parts = ctx.needs_input_grad
        pieces = torch.split(rows, [part.shape[1] for part in parts], dim=1)
        left = torch.cat([_one(grad, part.T) for part in parts], dim=1) if of_rows else None
        return left, *(
            _one(grad.T, piece.T) if wanted else None for piece, wanted in zip(pieces, of_parts, strict=True)
        )


def _forward(rows: Tensor, parts: Sequence[Tensor]) -> Tensor:
    return _summed(rows, parts, _one)


def _summed(
    rows: Tensor, parts: Sequence[Tensor], multiply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
) -> Tensor:
    total: Tensor | None = None
    for piece, part in zip(torch.split(rows, [part.shape[1] for part in parts], dim=1), parts, strict=True):
        total = multiply(piece, part, total)
    assert total is not None
    return total


def _one(rows: Tensor, others: Tensor, plus: Tensor | None = None) -> Tensor:
    operator = torch.ops.mkldnn._linear_pointwise
    found: Tensor = (
        operator(rows, others, None, "none", [], "")
        if plus is None
        else operator.binary(rows, plus, others, None, "add")
    )
    return found


def _plain(rows: Tensor, others: Tensor, plus: Tensor | None = None) -> Tensor:
    return rows @ others.T if plus is None else plus.addmm_(rows, others.T)


def _by_onednn(rows: Tensor) -> bool:
    return len(rows) >= _LEAST_ROWS and rows.device.type == "cpu" and rows.dtype == torch.float32 and onednn_is_true()


@cache
def onednn_is_true() -> bool:
    """True where oneDNN's operators are there, and as exact as float32 is."""
    draws = torch.Generator().manual_seed(0)
    rows, one, other = (torch.randn(shape, generator=draws) for shape in ((24, 96), (40, 64), (40, 32)))
    exact = rows.double() @ torch.cat([one, other], 1).double().T
    try:
        found = _forward(rows, [one, other])
    except (AttributeError, RuntimeError, NotImplementedError):  # a torch without it
        return False
    return bool((found - exact).abs().max() < _TRUE_TO * exact.abs().max())
