"""What is fitted once, on the whole catalogue, and then stands still: the map of texts, the scale of popularity, gains.

A text vector is centred, turned to its leading directions, and each direction divided by the fourth root of its variance:
half way to whitening, where no few directions that all texts share drown the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST_VARIANCE = 1e-6  # of a direction of the texts, as a share of the largest
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
        known = vectors[(vectors != 0).any(1)].cpu()
        center = known.mean(0) if len(known) else vectors.new_zeros(vectors.shape[1]).cpu()
        centred = (known - center).double()
        variance, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(centred)))
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
        has_text = (vectors != 0).any(1, keepdim=True)
        return torch.where(has_text, nn.functional.normalize((vectors - self.center) @ self.project, dim=1), 0.0)

    def popularity(self, counts: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """Standardised log count."""
        return (torch.log1p(counts) - self.popular[0]) / self.popular[1]


def _popular(counts: Float[Tensor, " items"]) -> Float[Tensor, " two"]:
    """Mean and spread of the log counts of what anybody has touched."""
    logs = torch.log1p(counts[counts > 0]).cpu()
    return torch.stack([logs.mean(), logs.std(correction=0).clamp(min=LEAST_SPREAD)])
