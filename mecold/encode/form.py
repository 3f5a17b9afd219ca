"""The form of a text, beside what it means: how long it is, whether it asks, counts or shouts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

FORM = 12


def form_of(texts: Sequence[str]) -> Float64[np.ndarray, "texts form"]:
    """Twelve numbers of each text; they say nothing about its language."""
    return np.array([_one(text) for text in texts], np.float64).reshape(len(texts), FORM)


def _one(text: str) -> list[float]:
    words = text.split()
    count = max(1, len(words))
    numbers = (
        np.log1p(len(words)),
        len(text) / 100,
        any(sign.isdigit() for sign in text),
        "?" in text or "？" in text,
        "!" in text or "！" in text,
        any(sign in text for sign in "\"'“”«»"),
        sum(word.isupper() and len(word) > 1 for word in words) / count,
        text.count("."),
        text.count(","),
        "…" in text or "..." in text,
        sum(map(len, words)) / count / 5,
        sum(word[:1].isupper() for word in words) / count,
    )
    return [float(one) for one in numbers]
