"""What a recommender answers beside lists for users: what is alike, why an item is there, and what the recommender is."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mecold.data.archive import Archive
from mecold.data.histories import Histories
from mecold.errors import InvalidDataError
from mecold.model import Model
from mecold.serving import adapt
from mecold.space.index import Ranked
from mecold.space.shelf import Shelf
from mecold.space.space import UserVectors
from mecold.types import Explanation, ItemId, Recommendation


@dataclass(frozen=True)
class Asker:
    """One user, as a caller described them.

    Args:
        support: their history; rows from the size of the catalogue on are texts.
        unknown: items of it that are not in the catalogue.
        texts: of things that are described.
        vectors: the same half-whitened; None where there are none.
    """

    support: Histories
    unknown: tuple[ItemId, ...]
    texts: tuple[str, ...]
    vectors: Float[Tensor, "guests rank"] | None


def listed(shelf: Shelf, found: Ranked) -> list[Recommendation]:
    """The list of the one user of a search."""
    rows, scores = found.of(0)
    return [Recommendation(item, float(score)) for item, score in zip(shelf.ids(rows), scores, strict=True)]


def alike(
    model: Model, shelf: Shelf, rows: Int64[np.ndarray, " items"], texts: Float[Tensor, "guests rank"] | None
) -> UserVectors:
    """What some items and texts are searched with: the sum of what the head reads of each, without what everybody wants.

    Args:
        model: reads them.
        shelf: the items.
        rows: of the items.
        texts: half-whitened texts of things that are not on the shelf; None where there are none.

    Raises:
        InvalidDataError: if there is neither an item nor a text.
    """
    guests = 0 if texts is None else len(texts)
    if not len(rows) + guests:
        raise InvalidDataError("There is no item to find similar ones of; name at least one, or pass text=...")
    every = np.concatenate([rows, len(shelf.space) + np.arange(guests)])
    users = adapt(model, shelf, Histories.padded(every, np.ones(len(every), np.int64)), texts)
    vector = users.vector.sum(0, keepdim=True)
    for name, channel in shelf.space.channels.items():
        if channel.traits.reads == "nothing":  # what everybody wants
            vector[:, shelf.space.spans[name]] = 0.0
    return UserVectors(vector, users.rows.reshape(1, -1), users.trust.reshape(1, -1))


def explained(model: Model, shelf: Shelf, asker: Asker, row: int) -> Explanation:
    """What each thing of a user's history, item or text, adds to the score of the item of a row."""
    support, size, labels = asker.support, int(asker.support.shots), asker.support.labels[0]
    # nothing liked; one thing at a time; everything
    variants = torch.cat([torch.zeros_like(labels)[None], torch.diag(labels)[:size], labels[None]])
    many = replace(support.take(torch.zeros(len(variants), dtype=torch.long)), labels=variants)
    wanted = torch.tensor([row], device=shelf.space.device)
    scores = shelf.space.scores_among(wanted, adapt(model, shelf, many, asker.vectors))[:, 0].cpu().numpy()
    on_shelf = len(shelf.space)
    names = [
        shelf.catalog.id_of(one) if one < on_shelf else asker.texts[one - on_shelf]
        for one in support.rows[0, :size].tolist()
    ]
    parts = zip(names, (scores[1:-1] - scores[0]).tolist(), strict=True)
    ordered = sorted(parts, key=lambda part: -part[1])
    return Explanation(shelf.catalog.id_of(row), float(scores[-1]), float(scores[0]), tuple(ordered))


def about(model: Model, shelf: Shelf, archive: Archive | None) -> dict[str, Any]:
    """What a model and its shelf are: sizes, channels, encoder, fingerprint, log, notes."""
    return {
        "items": len(shelf.catalog),
        "hidden_items": int(shelf.hidden.sum()),
        "cold_items": int((shelf.space.new & ~shelf.dead).sum()),
        "item_ids": shelf.catalog.kind,
        "dim": shelf.space.dim,
        "channels": {name: channel.width for name, channel in shelf.space.channels.items()},
        "neighbours": shelf.space.lists.rows.shape[1],
        "day_one": model.day_one,
        "inner": model.head.config.inner,
        "encoder": model.encoder,
        "events": list(model.events.names),
        "attributes": {column.name: column.kind for column in model.attributes.columns},
        "log": None if archive is None else archive.sizes(),
        "model": model.fingerprint,
        "notes": model.notes,
    }
