"""Which items of a history contributed most to each item of a list: `Recommender.explain` for many users at once."""

from dataclasses import replace

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32, Int64

from mecold.data.histories import Histories
from mecold.data.interactions import Interactions, OnUnknown
from mecold.recommender import Recommender
from mecold.serving import adapt

_READ = 20  # rows of a support that are read at most
_USERS = 64


def because(
    recommender: Recommender, log: pl.DataFrame, lists: pl.DataFrame, most: int, on_unknown: OnUnknown = "raise"
) -> pl.Series:
    """For each row of lists, ids of the items of the user's history that added most to its score, the largest first.

    Args:
        recommender: made the lists.
        log: histories of the users, and of others.
        lists: `user_id`, `rank` and `item_id`, user after user.
        most: how many ids; those that added nothing, or took away, are left out.
        on_unknown: what to do with unknown items of the log.
    """
    model, shelf = recommender._ready()
    dtype = pl.List(shelf.catalog.dtype)
    found: list[list[int]] = [[] for _ in range(lists.height)]
    if not (log.height and lists.height):
        return pl.Series("because", [None] * lists.height, dtype=dtype).fill_null(pl.lit([], dtype=dtype))
    history = Interactions.read(
        log, shelf.catalog, on_unknown=on_unknown, may_be_empty=True, events=model.events
    )  # fmt: skip
    labels = history.labels_from(recommender.config.liked_from)
    place = pl.DataFrame({"user_id": history.users, "place": np.arange(len(history))})
    owners = (
        lists.select("user_id")
        .join(place, on="user_id", how="left", maintain_order="left")["place"]
        .fill_null(-1)
        .to_numpy()
    )
    rows = shelf.catalog.find(lists["item_id"], "lists").to_numpy()
    for start in range(0, len(history), _USERS):
        users = slice(start, min(start + _USERS, len(history)))
        mine = np.flatnonzero((owners >= users.start) & (owners < users.stop))
        if not len(mine):
            continue
        support = history.histories(labels, users).newest(_READ)
        gains = _gains(recommender, support, owners[mine] - start, rows[mine])
        order = np.argsort(-gains, axis=1, kind="stable")[:, :most]
        there = np.take_along_axis(gains, order, 1) > 0
        owned = support.rows.numpy()[owners[mine] - start]
        for at, some, keep in zip(mine.tolist(), np.take_along_axis(owned, order, 1), there, strict=True):
            found[at] = some[keep].tolist()
    lengths = [len(some) for some in found]
    flat = shelf.catalog.ids.gather([row for some in found for row in some])
    frame = pl.DataFrame({"at": np.repeat(np.arange(len(found)), lengths), "item": flat})
    grouped = frame.group_by("at", maintain_order=True).agg("item")
    every = pl.DataFrame({"at": np.arange(len(found))}).join(grouped, on="at", how="left", maintain_order="left")
    return every.select(pl.coalesce("item", pl.lit([], dtype=dtype)).alias("because")).to_series()


@torch.inference_mode()
def _gains(
    recommender: Recommender, support: Histories, owners: Int64[np.ndarray, " rows"], items: Int64[np.ndarray, " rows"]
) -> Float32[np.ndarray, "rows shots"]:
    """What each row of a support adds to the score of an item of its user's list."""
    model, shelf = recommender._ready()
    users, shots = support.labels.shape
    # nothing liked; one item at a time
    variants = torch.cat([torch.zeros(users, 1, shots), torch.diag_embed(support.labels)], dim=1)
    many = support.take(torch.arange(users).repeat_interleave(shots + 1))
    vectors = adapt(model, shelf, replace(many, labels=variants.flatten(0, 1)))
    every = torch.from_numpy(owners)[:, None] * (shots + 1) + torch.arange(shots + 1)
    asked = vectors.take(every.flatten().to(shelf.space.device))
    wanted = torch.from_numpy(items).repeat_interleave(shots + 1)[:, None].to(shelf.space.device)
    scores = shelf.space.scores_of(wanted, asked)[:, 0].view(len(items), shots + 1)
    gains: np.ndarray = (scores[:, 1:] - scores[:, :1]).cpu().numpy()
    gains[~support.mask.numpy()[owners]] = 0.0
    return gains
