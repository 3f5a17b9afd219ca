"""What a task of behaviour was adapted to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from mecold.portable import Portable, finite


@dataclass(frozen=True, eq=False)
class BehaviourState(Portable):
    """All that is known of one behaviour. The caller keeps it; it is never changed.

    Args:
        weight: mean of the head's weights, float32, read-only.
        covariance: of these weights, float32, read-only.
        like: the past behaviour that it started from; None: from all of them.
        did: labelled users who did it.
        did_not: labelled users who did not.
        model: fingerprint of the task that made it; another one refuses it.
    """

    weight: Float32[np.ndarray, " dim"]
    covariance: Float32[np.ndarray, "dim dim"]
    like: str | None
    did: int
    did_not: int
    model: str

    arrays: ClassVar[Mapping[str, str]] = {"weight": "<f4", "covariance": "<f4"}

    @classmethod
    def _read(cls, found: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        finite(arrays)
        like, dim = found["like"], len(arrays["weight"])
        if not isinstance(like, str | None):
            raise TypeError("like is no text")
        rest = {"like": like, "did": int(found["did"]), "did_not": int(found["did_not"]), "model": str(found["model"])}
        return {"weight": arrays["weight"], "covariance": arrays["covariance"].reshape(dim, dim), **rest}
