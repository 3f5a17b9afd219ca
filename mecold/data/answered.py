"""What users did, and users with their features, as frames of the caller's."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from mecold.data.frames import Columns, FrameLike, id_column, number_column, read_frame, require
from mecold.errors import InvalidDataError, few

NOT_FEATURES = ("user_id", "behaviour", "group", "label")


def read_answers(source: FrameLike, columns: Columns | None = None, what: str = "past behaviours") -> pl.DataFrame:
    """What users did.

    Args:
        source: frame or path: `user_id`, `behaviour`, `label`, maybe `group`, and features.
        columns: canonical name -> the caller's name.
        what: the frame's name in messages.

    Returns:
        `user_id`, `behaviour`, `group` (an empty text where none was told), `label` (1.0 or 0.0), and all other columns.

    Raises:
        InvalidDataError: on missing columns or values, labels other than 0 and 1, or a user twice in one task.
    """
    frame = read_frame(source, what, columns)
    require(frame, ("user_id", "behaviour", "label"), what)
    if "group" not in frame.columns:
        frame = frame.with_columns(pl.lit("", pl.String).alias("group"))
    elif missing := frame["group"].null_count():
        raise InvalidDataError(
            f"{missing:,} of {len(frame):,} rows of the {what} have no group. Fill or drop them first."
        )
    names = id_column(frame["behaviour"], f"behaviour of the {what}").cast(pl.String)
    frame = frame.with_columns(
        id_column(frame["user_id"], f"user_id of the {what}"), names.alias("behaviour"), pl.col("group").cast(pl.String),
        _labels(frame, what),
    )  # fmt: skip
    _once(frame, ["user_id", "behaviour", "group"], what)
    return frame


def read_users(source: FrameLike) -> pl.DataFrame:
    """Users and their features.

    Args:
        source: frame or path: `user_id` and any columns.

    Raises:
        InvalidDataError: on missing ids, or a user twice.
    """
    frame = read_frame(source, "users")
    require(frame, ("user_id",), "users")
    frame = frame.with_columns(id_column(frame["user_id"], "user_id of the users"))
    _once(frame, ["user_id"], "users")
    return frame


def read_labels(source: Mapping[Any, Any] | FrameLike, what: str, ids: pl.Series | None = None) -> pl.DataFrame:
    """Who did it: `user_id` and `label`.

    Args:
        source: id -> 1 or 0, or such a frame or its path.
        what: the frame's name in messages.
        ids: those of users; ids of a csv are read as theirs are.

    Raises:
        InvalidDataError: on labels other than 0 and 1, or a user twice.
    """
    if isinstance(source, Mapping):
        values = list(source.values())
        if odd := [user for user, value in source.items() if value not in (0, 1)]:
            raise InvalidDataError(
                f"{len(odd):,} of {len(values):,} labels are neither 0 nor 1: {few([(one, source[one]) for one in odd])}. "
                "1 is who did it, 0 who did not."
            )
        kind = pl.String if ids is None else ids.dtype
        users = pl.Series("user_id", list(source)) if source else pl.Series("user_id", [], dtype=kind)
        source = pl.DataFrame([users, pl.Series("label", [float(one) for one in values], dtype=pl.Float64)])
    frame = read_frame(source, what, ids=None if ids is None else {"user_id": ids.dtype})
    require(frame, ("user_id", "label"), what)
    frame = frame.select("user_id", "label")
    if len(frame):
        frame = frame.with_columns(id_column(frame["user_id"], f"user_id of the {what}"), _labels(frame, what))
    _once(frame, ["user_id"], what)
    return frame


def _labels(frame: pl.DataFrame, what: str) -> pl.Series:
    numbers = number_column(frame, "label", what)
    if numbers is None:
        raise InvalidDataError(f"label of the {what} holds no number.")
    if (bad := ~numbers.is_in([0.0, 1.0])).any():
        odd = numbers.filter(bad).unique().sort().to_list()
        raise InvalidDataError(
            f"{int(bad.sum()):,} of {len(frame):,} labels of the {what} are neither 0 nor 1 ({few(odd)}; rows "
            f"{few(bad.arg_true().to_list())}). 1 is who did it, 0 who did not."
        )
    return numbers.alias("label")


def _once(frame: pl.DataFrame, key: list[str], what: str) -> None:
    if (twice := frame.height - frame.select(key).unique().height) == 0:
        return
    names = frame.filter(pl.struct(key).is_duplicated())["user_id"].unique(maintain_order=True).to_list()
    extra = ""
    if "label" in frame.columns:
        split = frame.group_by(key).agg(pl.col("label").n_unique().alias("n")).filter(pl.col("n") > 1).height
        extra = f", {split:,} of them with both labels" if split else ""
    raise InvalidDataError(
        f"{twice:,} of {frame.height:,} rows of the {what} name a {'user' if len(key) == 1 else 'user of one task'} again{extra}"
        f": {few(names)}. Keep one row of each."
    )
