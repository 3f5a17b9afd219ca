"""Lists for the users of a Spark table: each executor loads the model once; Spark sorts, spreads, and does again what was lost.

`pip install 'mecold[spark]'`, on every machine. The folder of the model must have the same path everywhere.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

from mecold import Recommender
from mecold.data.frames import INTERACTION_NAMES, TIMES
from mecold.errors import InvalidDataError, few
from mecold.jobs.lists import Users, Wanted, lists_of, whole_users
from mecold_adapters.about import SPARK

try:
    import pyarrow as pa
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F  # noqa: N812 (as everybody calls it)
    from pyspark.sql import types as T  # noqa: N812
except ImportError as error:
    raise SPARK.missing() from error
SPARK.warn_unless_supported()

Batches = Iterator[pa.RecordBatch]


def recommend(
    histories: DataFrame,
    model: str | Path,
    k: int = 10,
    *,
    users: DataFrame | None = None,
    min_score: float | None = None,
    max_history: int | None = None,
    because: int = 0,
    partitions: int | None = None,
    **settings: Any,
) -> DataFrame:
    """Lists for every user, as `Recommender.recommend_batch` makes them, row for row.

    Args:
        histories: what users did, as a log: `user_id`, `item_id`, and what else mecold reads. Rows of one time count in the order
            of their item ids, since a Spark table has none of its own.
        model: folder of a saved recommender.
        k: how many per user.
        users: with a column `user_id`, of further users, who get a list though they have no history.
        min_score: leave out items that score less.
        max_history: of each user only so many rows, the newest.
        because: for each item, so many items of the history that contributed most.
        partitions: into how many the users are cut; as Spark is set up where None.
        settings: further arguments of `recommend_batch` that are the same for all users, such as `exclude` or `on_unknown`.

    Returns:
        A table with `user_id`, `items` and `scores`, best first, and `because` where it was wanted; made when it is asked for.

    Raises:
        MecoldError: if a column is missing, `max_history` has nothing to go by, or the model cannot be read here.
    """
    missing = [name for name in ("user_id", "item_id") if name not in histories.columns]
    if missing:
        raise InvalidDataError(f"The histories have no column {few(missing)}; they have {few(histories.columns, 20)}.")
    times = [name for name in TIMES if name in histories.columns]
    if max_history is not None and not times:
        raise InvalidDataError("max_history keeps the newest rows, but nothing orders them. Give them a timestamp.")
    user = histories.schema["user_id"].dataType
    item = T.StringType() if _loaded(str(model)).info()["item_ids"] == "strings" else T.LongType()
    table = histories.select([name for name in INTERACTION_NAMES if name in histories.columns])
    if users is not None:
        table = table.unionByName(users.select(F.col("user_id").cast(user)).distinct(), allowMissingColumns=True)
    spread = table.repartition(partitions, "user_id") if partitions else table.repartition("user_id")
    fields = {"user_id": user, "items": T.ArrayType(item), "scores": T.ArrayType(T.FloatType())}
    fields |= {"because": T.ArrayType(T.ArrayType(item))} if because else {}
    wanted = Wanted(k, settings, min_score, max_history, because)
    return spread.sortWithinPartitions("user_id", *times, "item_id").mapInArrow(
        partial(_lists, str(model), wanted, {"string": pa.string()}.get(item.simpleString(), pa.int64())),
        T.StructType([T.StructField(name, kind) for name, kind in fields.items()]),
    )


@lru_cache(maxsize=1)
def _loaded(model: str) -> Recommender:
    """The model of this process."""
    return Recommender.load(Path(model), device="cpu")


def _lists(model: str, wanted: Wanted, item: pa.DataType, batches: Batches) -> Batches:
    torch.set_num_threads(1)  # every processor has a process
    recommender = _loaded(model)
    for rows in whole_users(pl.DataFrame(pl.from_arrow(batch)) for batch in batches):
        log = rows.filter(pl.col("item_id").is_not_null())
        if gaps := [name for name in log.columns if log[name].null_count()]:
            raise InvalidDataError(
                f"Some rows of the histories have no {few(gaps)}. Fill or drop them, or that column."
            )
        without = rows.join(log, on="user_id", how="anti")["user_id"].unique().sort()
        found = lists_of(recommender, Users(log, without), wanted).frame.to_arrow()
        kinds = {"items": pa.list_(item), "scores": pa.list_(pa.float32()), "because": pa.list_(pa.list_(item))}
        user = pa.string() if rows["user_id"].dtype == pl.String else found.schema.field("user_id").type
        yield from found.cast(pa.schema([(name, kinds.get(name, user)) for name in found.column_names])).to_batches()
