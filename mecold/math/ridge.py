"""What ridge regressions over a log share: the damped Cholesky factor."""

import torch
from jaxtyping import Float
from torch import Tensor


def damped_cholesky(
    gram: Float[Tensor, "items items"], l2: float, exact_to: int = 4096
) -> Float[Tensor, "items items"]:
    """Cholesky factor of `gram + l2 I`, in float64 up to so many items, where it is cheap and then exact."""
    damped = gram.double() if len(gram) <= exact_to else gram.clone()
    damped.diagonal().add_(l2)
    factor: Tensor = torch.linalg.cholesky(damped)
    return factor
