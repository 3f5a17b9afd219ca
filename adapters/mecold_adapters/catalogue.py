"""The items of a host's data set, with texts from a frame of one's own."""

import polars as pl

from mecold import InvalidDataError
from mecold.data.frames import FrameLike, id_column, read_frame, require


def described(every: pl.Series, items: FrameLike | None) -> pl.DataFrame:
    """All rows of `items`, and rows without text for the items of the host's data set that it lacks.

    Args:
        every: ids of the items of the data set.
        items: frame or path with `item_id` and texts; None: no item has a text.

    Raises:
        InvalidDataError: if the ids are of another kind than the data set's.
    """
    if items is None:
        return pl.DataFrame({"item_id": every, "title": [""] * len(every)})
    frame = read_frame(items, "items")
    require(frame, ["item_id"], "items")
    frame = frame.with_columns(id_column(frame["item_id"], "item_id of the items").alias("item_id"))
    ids = id_column(every, "item ids of the data set").alias("item_id")
    if frame["item_id"].dtype != ids.dtype:
        raise InvalidDataError(
            f"The item ids of `items` are {frame['item_id'].dtype}, those of the data set {ids.dtype}. Cast one of them."
        )
    missing = ids.to_frame().join(frame, on="item_id", how="anti", maintain_order="left")
    return pl.concat([frame, missing], how="diagonal_relaxed")
