"""Groups of users: how much more, or less, an item is wanted by a group than on the whole. For users of whom nothing else is
known but who they are.

An item's vector holds the logarithm of its rate in each group over its overall rate, shrunk as much as the attribute tells
little: by the posterior mean of a Gamma prior with mean 1, whose spread is measured over all items and groups of the
attribute. An attribute that tells nothing has a spread of zero, and says nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mecold.space.channel import Traits
from mecold.space.making import Maker, Material, Sides


def spread_of(counts: Float[Tensor, "items groups"], expected: Float[Tensor, "items groups"]) -> float:
    """Variance of the ratio of true to expected rates, by moments: what counts vary beyond chance."""
    beyond = (counts - expected).square() - expected * (1 - expected.sum(0) / expected.sum().clamp(min=1))
    return max(0.0, float(beyond.sum() / expected.square().sum().clamp(min=1e-12)))


def vectors_of(counts: Float[Tensor, "items groups"]) -> Float[Tensor, "items groups"]:
    """Log of the shrunk rate of each item in each group of one attribute over its overall rate; 0 for an item without counts."""
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum().clamp(min=1)
    spread = spread_of(counts, expected)
    prior = 1 / spread if spread > 0 else torch.inf
    return torch.log((counts + prior) / (expected + prior)) if spread > 0 else torch.zeros_like(counts)


def _sides(material: Material) -> Sides | None:
    if material.stats.by_group is None:
        return None
    counts = torch.from_numpy(material.stats.by_group)
    scale = torch.log1p(torch.from_numpy(material.stats.counts)).std(correction=0).clamp(min=1e-6)
    parts = [vectors_of(part) / scale for part in torch.split(counts, list(material.group_sizes), dim=1)]
    return Sides(None, torch.cat(parts, dim=1).to(material.counts.device))


GROUPS = Maker("groups", Traits(reads="groups", start=-1.0), _sides, counted=True)
