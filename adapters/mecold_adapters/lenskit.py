"""LensKit: mecold as a scorer component; users that it was not trained on are answered from the query's history.

pipe = topn_pipeline(MecoldScorer(items="items.parquet"))
pipe.train(dataset)
recommend(pipe, RecQuery(history_items=ItemList(["B0001", "B0042"])), 10)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mecold import Interaction, ItemId, MetaConfig, NotFittedError, Recommender, TextEncoder
from mecold_adapters.about import LENSKIT
from mecold_adapters.catalogue import described
from mecold_adapters.packing import pack, unpack

try:
    from lenskit.data import Dataset, ItemList, QueryInput, RecQuery
    from lenskit.pipeline import Component
    from lenskit.training import Trainable, TrainingOptions
    from pydantic import BaseModel
except ImportError as error:
    raise LENSKIT.missing() from error
LENSKIT.warn_unless_supported()


class MecoldConfig(BaseModel, extra="forbid"):
    """Settings of `MecoldScorer`.

    Args:
        items: file of the items, with `item_id` and text columns; None: the text attributes of the data set's items, if
            there are any.
        encoder: hub name or folder of a BERT-like model; None: mecold's default.
        liked_from: ratings below this are dislikes; None: every interaction is a liking.
        seed: seed of everything random where training options name none.
    """

    items: Path | None = None
    encoder: str | None = None
    liked_from: float | None = None
    seed: int = 0


class MecoldScorer(Component[ItemList], Trainable):  # type: ignore[misc]
    """Scores candidates for the user of a query, from the query's history alone; unknown items get NaN.

    In a pipeline of LensKit the history of a training user is looked up by the pipeline itself. A history with a
    `timestamp` field is read in the order of time, or where a time is missing in the order of the list, oldest first. With
    `liked_from`, a `rating` field tells likes from dislikes.
    """

    config: MecoldConfig
    recommender_: Recommender
    known_: frozenset[ItemId]

    def train(self, data: Dataset, options: TrainingOptions = TrainingOptions()) -> None:  # noqa: B008 - LensKit's way
        """Meta-learn from a data set's default interactions, with their timestamps and ratings where it has them."""
        if self.is_trained() and not options.retrain:
            return
        encoder = None if self.config.encoder is None else TextEncoder(self.config.encoder)
        recommender = Recommender(
            encoder,
            config=MetaConfig(liked_from=self.config.liked_from),
            device=options.device or "auto",
            rng=self.config.seed if options.rng is None else options.rng,
        )
        items = _items(data, self.config.items)
        recommender.fit_meta(_log(data, rated=self.config.liked_from is not None), items)
        self.known_ = frozenset(items["item_id"].to_list())
        self.recommender_ = recommender

    def is_trained(self) -> bool:
        """Whether `train` has run; LensKit asks from 2026 on."""
        return hasattr(self, "recommender_")

    def __call__(self, query: QueryInput, items: ItemList) -> ItemList:
        """Score the candidates, those of the history included.

        Args:
            query: anything LensKit takes for a query; its history is the support.
            items: the candidates.
        """
        if not self.is_trained():
            raise NotFittedError("This MecoldScorer is not trained yet: train the pipeline first.")
        state = self.recommender_.adapt_user(self._history(RecQuery.create(query)), on_unknown="drop")
        scores = np.full(len(items), np.nan, np.float32)
        ids = items.ids().tolist() if len(items) else []
        places = [place for place, item in enumerate(ids) if item in self.known_]
        scores[places] = self.recommender_.scores(state, [ids[place] for place in places])
        return ItemList(items, scores=scores)

    def _history(self, query: RecQuery) -> list[Interaction]:
        items = query.history_items
        if items is None or not len(items):
            return []
        rating, time = items.field("rating"), items.field("timestamp")
        labels = np.ones(len(items))
        if self.config.liked_from is not None and rating is not None:
            labels = np.where(np.asarray(rating) >= self.config.liked_from, 1.0, -1.0)
        times = [None] * len(items) if time is None else _seconds(_series(time)).to_list()
        if None in times:  # one unknown time leaves the order of the list
            times = [None] * len(items)
        rows = zip(items.ids().tolist(), labels.tolist(), times, strict=True)
        return [Interaction(item, label=label, time=when) for item, label, when in rows]

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "recommender_": pack(getattr(self, "recommender_", None))}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, recommender_=unpack(state["recommender_"]))
        if self.recommender_ is None:  # not trained: LensKit tells by the attribute
            del self.recommender_


def _items(data: Dataset, path: Path | None) -> pl.DataFrame:
    """Every item of the data set, with texts from the file or from the data set's own attributes."""
    every = pl.DataFrame({"item_id": data.items.ids().tolist()})
    if path is not None:
        return described(every["item_id"], path)
    frame = pl.DataFrame(pl.from_arrow(data.entities("item").arrow()))
    texts = [
        name for name, kind in frame.schema.items() if kind in (pl.String, pl.List(pl.String)) and name != "item_id"
    ]
    if not texts:
        return described(every["item_id"], None)
    return every.join(frame.select("item_id", *texts), on="item_id", how="left", maintain_order="left")


def _log(data: Dataset, *, rated: bool) -> pl.DataFrame:
    table = pl.DataFrame(pl.from_arrow(data.interaction_table(format="arrow", original_ids=True)))
    wanted = ["user_id", "item_id", *(name for name in ("timestamp", *(("rating",) if rated else ())) if name in table)]
    log = table.select(wanted)
    return log.with_columns(_seconds(log["timestamp"]).alias("timestamp")) if "timestamp" in log else log


def _series(times: Any) -> pl.Series:
    values = np.asarray(times)
    return pl.Series(values.astype("datetime64[us]") if values.dtype.kind == "M" else values)


def _seconds(times: pl.Series) -> pl.Series:
    return times.dt.epoch("us") / 1e6 if times.dtype.is_temporal() else times.cast(pl.Float64)
