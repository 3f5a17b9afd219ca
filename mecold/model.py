"""What a fit leaves behind, apart from the items: basis, head, and who they are."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch

from mecold.data.attributes import Attributes
from mecold.data.events import Events
from mecold.heads.preference import Coefficients, PreferenceHead
from mecold.heads.ratings import RatingHead
from mecold.lazy import cached_property
from mecold.space.basis import Basis
from mecold.space.space import ItemSpace
from mecold.types import ItemId

NO_LOG = "No log of this shop has been read"
"""How the note of a model begins that knows texts alone, and what was learned elsewhere."""


@dataclass(frozen=True)
class Ratings:
    """How ratings come about: a head, and which of its items is whose.

    Args:
        head: on the CPU, wherever the model is: it is small, and asked for one user at a time.
        rows: item id -> row of the head's items; an item that was taken out has none, and is a new one should it come back.
    """

    head: RatingHead
    rows: Mapping[ItemId, int]

    @classmethod
    def of(cls, head: RatingHead | None, items: Iterable[ItemId]) -> "Ratings | None":
        """A head whose items are these, in order; None without a head."""
        return None if head is None else cls(head, {item: row for row, item in enumerate(items)})

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest rating of the log."""
        lowest, highest = self.head.scale[:2].tolist()
        return lowest, highest

    def without(self, items: Iterable[ItemId]) -> "Ratings":
        """The same, with nothing known of these items."""
        gone = set(items)
        return replace(self, rows={item: row for item, row in self.rows.items() if item not in gone})


@dataclass(frozen=True)
class Model:
    """A trained model.

    Args:
        basis: scales of the item space.
        head: preference head.
        encoder: fingerprint of the encoder whose vectors it reads.
        axes: fingerprint of the item space as it was fitted (see `axes_of`); items that come later do not change it.
        log: the fit's record as JSON lines.
        events: kinds of events that it was fitted with.
        attributes: what it knows of users beside what they did.
        ratings: how ratings come about; None where the log had none to learn from.
    """

    basis: Basis
    head: PreferenceHead
    encoder: str
    axes: str
    log: str
    events: Events = field(default_factory=Events)
    attributes: Attributes = field(default_factory=Attributes)
    ratings: Ratings | None = None

    @cached_property
    def notes(self) -> list[str]:
        """Warnings and decisions of the fit, in words."""
        lines = self.log.splitlines()
        return list(json.loads(lines[-1])["notes"]) if lines else []

    @property
    def day_one(self) -> bool:
        """True where no log of the shop has been read."""
        return any(note.startswith(NO_LOG) for note in self.notes)

    @cached_property
    def repeats(self) -> bool:
        """True where it was learned what comes again."""
        return bool(self.head.gains.again.any())

    @cached_property
    def coefficients(self) -> Coefficients:
        """The head's numbers, expanded once."""
        return self.head.coefficients()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every learned number and of the axes of the item space; states of another model are refused by it."""
        digest = hashlib.sha256(f"{self.encoder} {self.axes} {sorted(self.basis.new_gain.items())}".encode())
        digest.update(f"{self.events}".encode())
        for one in self.attributes.columns:
            digest.update(f"{one.name} {one.kind} {one.names}".encode() + one.edges.tobytes() + one.centres.tobytes())
        named = {"center": self.basis.center, "project": self.basis.project, "popular": self.basis.popular}
        rated = {} if self.ratings is None else self.ratings.head.tensors()
        for name, value in (named | self.head.prior.tensors() | self.head.gains.tensors() | rated).items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def without(self, items: Iterable[ItemId]) -> "Model":
        """The same model, with nothing known of how these items were rated."""
        return self if self.ratings is None else replace(self, ratings=self.ratings.without(items))

    def to(self, device: torch.device) -> "Model":
        """The same model on another device."""
        return replace(self, basis=self.basis.to(device), head=self.head.to(device))


def axes_of(space: ItemSpace) -> str:
    """Hash of all sides of all items: two fits of the same head have other axes, and user vectors of one mean nothing
    in the other.
    """
    digest = hashlib.sha256()
    for name, channel in space.channels.items():
        digest.update(f"{name} {channel.width}".encode())
        for side in (channel.item, None if channel.shared else channel.support):
            if side is not None:
                digest.update(side.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
