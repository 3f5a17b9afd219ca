"""What a fit leaves behind, apart from the items: tower, head, and who they are."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch

from mecold.heads.preference import Coefficients, PreferenceHead
from mecold.space.space import ItemTower


@dataclass(frozen=True)
class Model:
    """A trained model.

    Args:
        tower: item tower.
        head: preference head.
        encoder: fingerprint of the encoder whose vectors it reads.
        log: the fit's record as JSON lines.
    """

    tower: ItemTower
    head: PreferenceHead
    encoder: str
    log: str

    @cached_property
    def coefficients(self) -> Coefficients:
        """The head's parameters, expanded once."""
        return self.head.coefficients()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every learned number; states made by another model are refused by it."""
        digest = hashlib.sha256(self.encoder.encode())
        for module in (self.tower, self.head):
            for name, value in sorted(module.state_dict().items()):
                digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def to(self, device: torch.device) -> "Model":
        """The same model on another device."""
        return Model(self.tower.to(device), self.head.to(device), self.encoder, self.log)
