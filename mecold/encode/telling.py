"""How much the texts of a catalogue tell, and their vectors: what says nothing is counted and said, and nobody has to find out.

Items with one and the same text are one and the same item to the text channel, and so are items with equal vectors.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float32

from mecold.errors import few

SHARED = (
    0.2  # of the items, above which equal texts are worth a note: two sizes of one article have one title in many shops
)
ALIKE = 0.98  # mean cosine of two vectors; those of plain BERT models, which do tell items apart, reach .9
_SAME = 1e-5  # difference of two vectors, in units of the longest, that padding and threads make


def told_texts(items: pl.Series, texts: Sequence[str], vectors: Float32[np.ndarray, "items dim"]) -> list[str]:
    """What is wrong with the texts of a catalogue, if anything, in words and numbers.

    Args:
        items: ids of the items.
        texts: their texts; empty where an item has none.
        vectors: zero for an empty text.
    """
    rows = np.array([row for row, text in enumerate(texts) if text], np.int64)
    if len(rows) < 2:
        return []
    mine, some = vectors[rows], [texts[row] for row in rows.tolist()]
    found = _equal_texts(some)
    zero = ~(mine != 0).any(axis=1)
    if zero.any():
        ids = [items[int(row)] for row in rows[zero]]
        found.append(
            f"The encoder returned only zeros for {int(zero.sum()):,} of {len(rows):,} items with a text ({few(ids)}): these "
            "texts say nothing."
        )
    mine, some, rows = (
        mine[~zero],
        [text for text, none in zip(some, zero.tolist(), strict=True) if not none],
        rows[~zero],
    )
    if len(rows) < 2:
        return found
    same = _same_vectors(some, mine)
    if len(same):
        ids = [items[int(rows[place])] for place in same]
        found.append(
            f"{len(same):,} of {len(rows):,} items have the vector of another item although their texts differ ({few(ids)}): the "
            "encoder reads the beginning of a text alone (TextEncoder(max_length=...)), or nothing of what differs. Put what "
            "tells items apart in front: TextTemplate(fields=(...))."
        )
    cosine = _mean_cosine(mine)
    if cosine > ALIKE and len(set(some)) > 1:
        found.append(
            f"The vectors of {len(rows):,} items are nearly all alike (mean cosine {cosine:.3f}): their "
            "texts, or the encoder, tell little of items."
        )
    return found


def _equal_texts(texts: Sequence[str]) -> list[str]:
    counts = Counter(texts)
    text, most = counts.most_common(1)[0]
    shared = sum(count for count in counts.values() if count > 1)
    if len(counts) == 1:
        return [f"All {len(texts):,} texts are equal ({text[:60]!r}): they tell nothing of items. {_OTHER}"]
    if shared <= SHARED * len(texts):
        return []
    return [
        f"{shared:,} of {len(texts):,} items have a text that another item has too ({len(counts):,} texts differ; {text[:60]!r} "
        f"stands {most:,} times): texts do not tell these apart. {_OTHER}"
    ]


_OTHER = "Name columns that do with TextTemplate(fields=(...)); longer fields with max_chars=...."


def _same_vectors(texts: Sequence[str], vectors: Float32[np.ndarray, "items dim"]) -> list[int]:
    """Places of texts that have the vector of another text."""
    firsts = {text: place for place, text in reversed(list(enumerate(texts)))}
    places = np.array(sorted(firsts.values()), np.int64)
    own = vectors[places]
    least = _SAME * float(np.abs(own).max())
    # equal vectors are next to each other in the order of any projection
    order = np.argsort(own @ np.random.default_rng(0).normal(size=own.shape[1]), kind="stable")
    equal = (np.abs(np.diff(own[order], axis=0)) <= least).all(1)
    among = np.zeros(len(places), bool)
    among[order[1:]] |= equal
    among[order[:-1]] |= equal
    return [int(place) for place in places[among]]


def _mean_cosine(vectors: Float32[np.ndarray, "items dim"]) -> float:
    """Of two different items."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    total, count = unit.sum(0, dtype=np.float64), len(unit)
    return float((total @ total - count) / (count * (count - 1)))
