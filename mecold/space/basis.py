"""What is fitted once, on the whole catalogue, and then stands still: the map of texts, the scale of popularity, gains.

A text vector is centred, turned to its leading directions, and each direction divided by the fourth root of its variance:
half way to whitening, where no few directions that all texts share drown the others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST_VARIANCE = 1e-6  # of a direction of the texts, as a share of the largest
_AT_ONCE = 1 << 16  # vectors
LEAST_SPREAD = 0.1  # of log counts: where all items are equally popular, chance differences stay small


@dataclass(frozen=True)
class Basis:
    """Scales of an item space.

    Args:
        center: mean of the text vectors.
        project: text vectors to half-whitened ones.
        popular: mean and spread of log counts.
        new_gain: how much the item side of each channel counts for items that nobody has touched; 1 where not named.
    """

    center: Float[Tensor, " text_dim"]
    project: Float[Tensor, "text_dim rank"]
    popular: Float[Tensor, " two"]
    new_gain: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def fit(cls, vectors: Float[Tensor, "items text_dim"], counts: Float[Tensor, " items"], rank: int) -> "Basis":
        """Centre and half-whitened leading directions of the texts; mean and spread of popularity.

        Args:
            vectors: text vectors of the catalogue; all-zero rows (items without text) are left out.
            counts: users per item.
            rank: most directions that are kept.
        """
        size, width = 0, vectors.shape[1]
        total, spread = torch.zeros(width), torch.zeros(width, width, dtype=torch.float64)
        for known in _known(vectors):
            size, total = size + len(known), total + known.sum(0)
        center = total / max(1, size)
        for known in _known(vectors):
            centred = (known - center).double()
            spread += centred.T @ centred
        variance, axes = torch.linalg.eigh(spread / max(1, size))
        tells = variance > LEAST_VARIANCE * variance.max()  # along the others no two texts differ
        scale = torch.where(tells, variance.clamp(min=1e-30) ** -0.25, 0.0)
        project = (axes * scale).flip(1)[:, :rank].to(vectors.dtype).contiguous()
        return cls(center, project, _popular(counts)).to(vectors.device)

    def rescaled(self, counts: Float[Tensor, " items"]) -> "Basis":
        """With the scale of popularity that these counts have."""
        return replace(self, popular=_popular(counts).to(self.popular.device))

    def to(self, device: torch.device) -> "Basis":
        """The same scales on another device."""
        return Basis(self.center.to(device), self.project.to(device), self.popular.to(device), self.new_gain)

    def text(self, vectors: Float[Tensor, "items text_dim"]) -> Float[Tensor, "items rank"]:
        """Half-whitened texts, scaled to length 1; an item without text stays at zero."""
        found = vectors.new_empty(len(vectors), self.project.shape[1])
        for start in range(0, len(vectors), _AT_ONCE):
            some = vectors[start : start + _AT_ONCE]
            turned = nn.functional.normalize((some - self.center) @ self.project, dim=1)
            found[start : start + _AT_ONCE] = torch.where((some != 0).any(1, keepdim=True), turned, 0.0)
        return found

    def popularity(self, counts: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """Standardised log count."""
        return (torch.log1p(counts) - self.popular[0]) / self.popular[1]


def _known(vectors: Float[Tensor, "items text_dim"]) -> Iterator[Float[Tensor, "some text_dim"]]:
    """The vectors of items that have a text, some at a time: a large catalogue has several times the memory of one copy."""
    for some in torch.split(vectors, _AT_ONCE):
        yield some[(some != 0).any(1)].cpu()


def _popular(counts: Float[Tensor, " items"]) -> Float[Tensor, " two"]:
    """Mean and spread of the log counts of what anybody has touched."""
    logs = torch.log1p(counts[counts > 0]).cpu()
    return torch.stack([logs.mean(), logs.std(correction=0).clamp(min=LEAST_SPREAD)])
