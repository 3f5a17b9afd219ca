"""Trends: how much more, or less, an item was wanted at a time than on the whole. One more inner product.

A log's time is cut into bins of equally many interactions. An item's vector holds the logarithm of its rate in each bin
over its overall rate, shrunk where little is known; a user who is there at a time reads the two nearest bins. After the
log's end the last bin is read, less and less, as fast as trends faded within the log.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from mecold.space.channel import Traits
from mecold.space.clock import Clock
from mecold.space.making import Maker, Material, Sides

SHRINK = 2.0  # expected interactions of an item in a bin at which its own count weighs half
_LEAST_BINS = 3
_LEAST_ROWS = 200  # interactions per bin
_PAST = 0.8  # share of a log from which the rest is looked at


def edges_of(times: Float64[np.ndarray, " rows"], bins: int) -> Float64[np.ndarray, " edges"]:
    """Edges of at most so many bins of equally many interactions; none where there are too few to tell apart."""
    bins = min(bins, len(times) // _LEAST_ROWS)
    if bins < _LEAST_BINS:
        return np.empty(0)
    edges = np.unique(np.quantile(times, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > _LEAST_BINS else np.empty(0)


def counts_by_time(
    items: Int64[np.ndarray, " rows"],
    times: Float64[np.ndarray, " rows"],
    edges: Float64[np.ndarray, " edges"],
    n_items: int,
) -> Float32[np.ndarray, "items bins"]:
    """Interactions of each item in each bin."""
    bins = len(edges) - 1
    place = np.searchsorted(edges[1:-1], times, side="right")
    counts = np.bincount(items * bins + place, minlength=n_items * bins).reshape(n_items, bins)
    return counts.astype(np.float32)


def vectors_of(counts: Float[Tensor, "items bins"]) -> Float[Tensor, "items bins"]:
    """Log of the shrunk rate of each item in each bin over its overall rate; zero for an item without interactions.

    The posterior mean of a Gamma prior with mean 1 on the ratio, in units of the popularity channel (standard deviations
    of the log count).
    """
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum().clamp(min=1)
    scale = torch.log1p(counts.sum(1)).std(correction=0).clamp(min=1e-6)
    return torch.log((counts + SHRINK) / (expected + SHRINK)) / scale


def persistence_of(counts: Float[Tensor, "items bins"]) -> float:
    """How much of a trend is left one bin later, from 0 to 1: the slope of each bin's vectors on those of the bin before."""
    found = vectors_of(counts) * counts.sum(1, keepdim=True).sqrt()  # items that are known better count more
    before, after = found[:, :-1], found[:, 1:]
    return float(((before * after).sum() / (before**2).sum().clamp(min=1e-12)).clamp(0, 1))


def demand_for_new(
    items: Int64[np.ndarray, " rows"], times: Float64[np.ndarray, " rows"], n_items: int
) -> float | None:
    """How much items that appear late in a log are wanted, in units of what any item's share would be.

    The share of the last fifth of the interactions that goes to items untouched before, over the share of these among
    all items of the log. None where no interaction is later than the rest, or no item appears late. (Items that are
    never touched do not count: they are no arrivals, or ones that nobody has seen yet.)
    """
    later = times > np.quantile(times, _PAST) if len(times) else np.zeros(0, bool)
    touched, before = (np.bincount(some, minlength=n_items) > 0 for some in (items, items[~later]))
    late = touched & ~before
    if not late.any():
        return None
    return float(late[items[later]].mean() / late[touched].mean())


def _sides(material: Material) -> Sides | None:
    if material.stats.by_time is None:
        return None
    return Sides(None, vectors_of(torch.from_numpy(material.stats.by_time)).to(material.counts.device))


def _clock(material: Material) -> Clock:
    centres = torch.from_numpy((material.edges[1:] + material.edges[:-1]) / 2)
    return Clock(centres.to(material.counts.device), material.persistence)


TREND = Maker("trend", Traits(reads="time"), _sides, clock=_clock, counted=True)
