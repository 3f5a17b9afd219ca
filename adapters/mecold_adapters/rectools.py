"""RecTools: mecold as a model; users with interactions in the data set are answered whether it was fitted on them or not.

model = MecoldModel(items="items.parquet").fit(dataset)
model.recommend(users, dataset, k=10, filter_viewed=True)
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mecold import DataWarning, Encoder, ItemId, MetaConfig, Recommender, TextEncoder
from mecold.data.frames import FrameLike
from mecold_adapters.about import RECTOOLS
from mecold_adapters.catalogue import described
from mecold_adapters.packing import pack, unpack

try:
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models.base import FixedColdRecoModelMixin, ModelBase, ModelConfig
except ImportError as error:
    raise RECTOOLS.missing() from error
RECTOOLS.warn_unless_supported()


class MecoldModelConfig(ModelConfig):  # type: ignore[misc]
    """Settings of `MecoldModel` that can be written down; see there."""

    items: Path | None = None
    encoder: str | None = None
    liked_from: float | None = None
    seed: int = 0


class MecoldModel(FixedColdRecoModelMixin, ModelBase[MecoldModelConfig]):  # type: ignore[misc]
    """mecold under the conventions of RecTools.

    "Hot" in RecTools is whoever has interactions in the data set that is handed to `recommend`, be it other than the one
    the model was fitted on: such users are adapted to. Warm and cold ones get the list of nobody in particular. Only items
    of that data set are recommended, as everywhere in RecTools; items that only it knows, and not the model, are not.

    Args:
        items: frame or path with `item_id` (the external ids) and texts; None: no texts, the model lives on interactions.
        encoder: an encoder, or hub name or folder of a BERT-like model; None: mecold's default.
        liked_from: weights below this are dislikes; None: every interaction is a liking.
        seed: seed of everything random.
        verbose: 1 shows progress bars.
    """

    recommends_for_warm = False  # features of users are not used: a warm user is like a cold one
    recommends_for_cold = True
    config_class = MecoldModelConfig

    def __init__(
        self,
        items: FrameLike | None = None,
        encoder: Encoder | str | None = None,
        liked_from: float | None = None,
        seed: int = 0,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose=verbose)
        self.items, self.encoder, self.liked_from, self.seed = items, encoder, liked_from, seed
        self.recommender: Recommender | None = None
        self._known: frozenset[ItemId] = frozenset()

    def _get_config(self) -> MecoldModelConfig:
        for name, kinds in (("items", (str, Path)), ("encoder", (str,))):
            if not isinstance(getattr(self, name), (*kinds, type(None))):
                raise TypeError(
                    f"`{name}` was given as an object, which a config cannot hold. Give a path to a file of the items, and "
                    "the name or folder of an encoder."
                )
        return MecoldModelConfig(
            cls=self.__class__,
            items=None if self.items is None else Path(str(self.items)),
            encoder=self.encoder,
            liked_from=self.liked_from,
            seed=self.seed,
            verbose=self.verbose,
        )

    @classmethod
    def _from_config(cls, config: MecoldModelConfig) -> "MecoldModel":
        return cls(config.items, config.encoder, config.liked_from, config.seed, config.verbose)

    def _fit(self, dataset: Dataset) -> None:
        log = _log(dataset, rated=self.liked_from is not None)
        items = described(pl.Series(dataset.item_id_map.external_ids.tolist()), self.items)
        encoder = TextEncoder(self.encoder) if isinstance(self.encoder, str) else self.encoder
        recommender = Recommender(
            encoder, config=MetaConfig(liked_from=self.liked_from), rng=self.seed, progress=self.verbose > 0
        )
        recommender.fit_meta(log, items)
        self.recommender, self._known = recommender, frozenset(items["item_id"].to_list())

    def _recommend_u2i(
        self,
        user_ids: np.ndarray,
        dataset: Dataset,
        k: int,
        filter_viewed: bool,
        sorted_item_ids_to_recommend: np.ndarray | None,
    ) -> tuple[Any, Any, Any]:
        log = _log(dataset, rated=self.liked_from is not None, users=user_ids)
        found = self._model.recommend_batch(
            log,
            k,
            on_unknown="drop",
            among=self._candidates(dataset, sorted_item_ids_to_recommend),
            include_seen=not filter_viewed,
        )
        asked = pl.DataFrame({"user_id": user_ids.tolist()})
        found = asked.join(found, on="user_id", maintain_order="left_right")  # in the order of the users asked for
        items = dataset.item_id_map.convert_to_internal(found["item_id"].to_numpy())
        return found["user_id"].to_numpy(), items, found["score"].to_numpy()

    def _get_cold_reco(
        self, dataset: Dataset, k: int, sorted_item_ids_to_recommend: np.ndarray | None
    ) -> tuple[Any, Any]:
        among = self._candidates(dataset, sorted_item_ids_to_recommend)
        found = self._model.recommend(self._model.adapt_user([]), k, among=among)
        items = dataset.item_id_map.convert_to_internal(np.array([one.item for one in found]))
        return items, np.array([one.score for one in found], np.float32)

    def _recommend_i2i(
        self, target_ids: np.ndarray, dataset: Dataset, k: int, sorted_item_ids_to_recommend: np.ndarray | None
    ) -> tuple[Any, Any, Any]:
        """Items wanted by who has the target; the target itself, where it may be recommended, first."""
        internal = dataset.item_id_map.to_internal
        wanted = set(self._candidates(dataset, sorted_item_ids_to_recommend))
        rows: list[tuple[int, int, float]] = []
        late = 0
        for target, item in zip(
            target_ids.tolist(), dataset.item_id_map.convert_to_external(target_ids).tolist(), strict=True
        ):
            if item not in self._known:
                late += 1
                continue
            near = [one for one in self._model.similar_items(item, len(self._known)) if one.item in wanted]
            own = [(item, near[0].score + 1.0 if near else 1.0)] if item in wanted else []
            found = [*own, *((one.item, one.score) for one in near)][:k]
            rows += [(target, int(internal[one]), score) for one, score in found]
        if late:
            message = (
                f"{late:,} target items came after the fit and get no rows. Fit on this dataset, or leave them out."
            )
            warnings.warn(message, DataWarning, stacklevel=2)
        targets, items, scores = zip(*rows, strict=True) if rows else ((), (), ())
        return targets, items, scores

    @property
    def _model(self) -> Recommender:
        self._check_is_fitted()
        assert self.recommender is not None
        return self.recommender

    def _candidates(self, dataset: Dataset, internal: np.ndarray | None) -> list[ItemId]:
        ids = (
            dataset.item_id_map.external_ids if internal is None else dataset.item_id_map.convert_to_external(internal)
        )
        return [item for item in ids.tolist() if item in self._known]

    def __getstate__(self) -> Mapping[str, Any]:
        return {**self.__dict__, "recommender": pack(self.recommender)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        encoder = state["encoder"] if not isinstance(state["encoder"], str) else None
        self.__dict__.update(state, recommender=unpack(state["recommender"], encoder))


def _log(dataset: Dataset, *, rated: bool, users: np.ndarray | None = None) -> pl.DataFrame:
    """Interactions with external item ids, of some users with their internal ids or of all with their external ones."""
    raw = dataset.interactions.df
    if users is not None:
        raw = raw[raw[Columns.User].isin(users)]
    who = raw[Columns.User].to_numpy()
    log = {
        "user_id": who if users is not None else dataset.user_id_map.convert_to_external(who),
        "item_id": dataset.item_id_map.convert_to_external(raw[Columns.Item].to_numpy()),
        "timestamp": raw[Columns.Datetime].to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6,
    }
    if rated:
        log["rating"] = raw[Columns.Weight].to_numpy()
    return pl.DataFrame({name: values.tolist() for name, values in log.items()})
