"""The data set and its splits in numbers."""

import numpy as np

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import Split
from mecold.evaluation.report.records import DatasetFindings, Histogram, SplitSizes


def describe(dataset: Dataset) -> DatasetFindings:
    """The set in numbers, and the histograms that a report draws."""
    touched = np.bincount(dataset.log.items, minlength=dataset.catalog.size)
    lengths = np.array([len(text) for text in dataset.catalog.texts])
    return DatasetFindings(
        name=dataset.name,
        users=len(dataset.log),
        items=dataset.catalog.size,
        interactions=len(dataset.log.items),
        order=dataset.log.order,
        items_without_interactions=int((touched == 0).sum()),
        items_without_text=int((lengths == 0).sum()),
        median_items_per_user=float(np.median(dataset.log.lengths)),
        median_users_per_item=float(np.median(touched)),
        fingerprint=dataset.fingerprint,
        notes=[*dataset.catalog.notes, *dataset.log.notes],
        histograms={
            "user_activity": histogram(dataset.log.lengths),
            "item_popularity": histogram(touched),
            "text_length": histogram(lengths),
        },
        liked_from=dataset.liked_from,
    )


def sizes_of(split: Split) -> SplitSizes:
    """How many users and interactions each part has."""
    return SplitSizes(
        len(split.train), len(split.train.items), len(split.test), len(split.valid),
        None if split.cold is None else len(split.cold),
    )  # fmt: skip


def histogram(values: np.ndarray, bins: int = 24) -> Histogram:
    """Counts over bins that widen with the value, as heavy-tailed numbers need; edges are whole numbers."""
    top = max(1, int(values.max(initial=0)))
    edges = np.unique(np.concatenate([[0], np.geomspace(1, top + 1, bins + 1)]).round()).astype(int)
    counts, _ = np.histogram(values, bins=[*edges[:-1].tolist(), np.inf])
    return Histogram([float(edge) for edge in edges], [float(count) for count in counts])
