"""Cornac: a trained model's vectors for mecold, and mecold as a model in `cornac.Experiment`.

warm = warm_model(mf)                                          # from the host
recommender.fit_meta(log, items, factors=warm.to_factors())

Experiment(NextItemEvaluation(...), [MecoldRecommender(items=items)], metrics).run()  # into the host
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from mecold import Encoder, InvalidDataError, ItemId, MetaConfig, NotFittedError, Recommender, TextEncoder
from mecold.data.frames import FrameLike
from mecold_adapters.about import CORNAC
from mecold_adapters.catalogue import described
from mecold_adapters.packing import pack, unpack
from mecold_adapters.warm import FactorModel

try:
    from cornac.data import Dataset, SequentialDataset
    from cornac.exception import ScoreException
    from cornac.models.recommender import MEASURE_DOT, NextItemRecommender, is_ann_supported
except ImportError as error:
    raise CORNAC.missing() from error
CORNAC.warn_unless_supported()


def warm_model(model: Any, *, exact: bool = True) -> FactorModel:
    """Vectors of a fitted model with Cornac's `ANNMixin`; scores are its own.

    The vectors leave out what is constant for a user, such as a mean rating; the host's own scores of each user tell it.

    Args:
        model: the fitted model; it is only read.
        exact: False spares the scoring of every user once; scores then are the host's up to a constant per user, which no
            ranking depends on.

    Raises:
        InvalidDataError: if the model is not fitted, has no vectors or sparse ones, or does not compare them by the inner
            product.
    """
    if not is_ann_supported(model):
        raise InvalidDataError(f"{type(model).__name__} hands out no vectors (it is no ANNMixin).")
    if not model.is_fitted:
        raise InvalidDataError(f"{type(model).__name__} is not fitted: call fit(train_set) first.")
    if (measure := model.get_vector_measure()) != MEASURE_DOT:
        raise InvalidDataError(
            f"{type(model).__name__} compares vectors by {measure}; only the {MEASURE_DOT} can be taken."
        )
    item, user = model.get_item_vectors(), model.get_user_vectors()
    if sp.issparse(item) or sp.issparse(user):
        raise InvalidDataError(
            f"{type(model).__name__} is an item-item model, whose vectors are as long as the catalogue. Take its matrices: "
            "NeighbourModel(item_ids, similarity, user_ids, user_items); for EASE, model.B and model.U."
        )
    # the maps of ids go on to items and users of the test set, for which there are no vectors
    constant = None
    if exact:
        constant = np.array([model.score(row)[0] for row in range(len(user))]) - user @ item[0]
    return FactorModel(_ids(model.iid_map, len(item)), item, _ids(model.uid_map, len(user)), user, user_biases=constant)


class MecoldRecommender(NextItemRecommender):  # type: ignore[misc]
    """mecold as a model of Cornac: scores the next item of a history, and users of the training set by theirs.

    Of a `SequentialDataset` every session is a history to learn from, of another `Dataset` every user, in the order of time
    where it has timestamps. Items of the test set that nobody touched in training are scored too, by their texts.

    Args:
        items: frame or path with `item_id` (Cornac's raw ids) and texts; None: no texts.
        name: how Cornac's tables call it.
        encoder: an encoder, or hub name or folder of a BERT-like model; None: mecold's default.
        liked_from: ratings below this are dislikes; None: every rating is a liking. Sessions have no ratings.
        seed: seed of everything random.
        trainable: False keeps a fitted model as it is.
        verbose: show progress bars.
    """

    def __init__(
        self,
        items: FrameLike | None = None,
        name: str = "mecold",
        encoder: Encoder | str | None = None,
        liked_from: float | None = None,
        seed: int = 0,
        trainable: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__(name=name, trainable=trainable, verbose=verbose)
        self.items, self.encoder, self.liked_from, self.seed = items, encoder, liked_from, seed
        self.ignored_attrs.append("recommender")  # not copied by Cornac, but shared: a fit replaces it
        self.recommender: Recommender | None = None
        self._ids: list[ItemId] = []
        self._log: pl.DataFrame | None = None  # of the users of a set without sessions, by index

    def fit(self, train_set: Dataset, val_set: Dataset | None = None) -> "MecoldRecommender":
        """Meta-learn from a training set; the validation set is not used.

        Raises:
            InvalidDataError: if the ids of `items` are of another kind than Cornac's.
        """
        super().fit(train_set, val_set)
        if not self.trainable and self.recommender is not None:
            return self
        ids = _ids(self.iid_map, self.total_items)
        by_session = isinstance(train_set, SequentialDataset)
        log = _log(train_set, ids, by_session=by_session, rated=self.liked_from is not None and not by_session)
        items = described(pl.Series(ids), self.items)
        encoder = TextEncoder(self.encoder) if isinstance(self.encoder, str) else self.encoder
        liked_from = self.liked_from if "rating" in log else None
        recommender = Recommender(
            encoder, config=MetaConfig(liked_from=liked_from), rng=self.seed, progress=self.verbose
        )
        recommender.fit_meta(log, items)
        self.recommender, self._ids = recommender, ids
        self._log = None if by_session else log
        return self

    def score(
        self,
        user_idx: int,
        item_idx: int | None = None,
        history_items: Sequence[int] | None = None,
        **_: Any,
    ) -> Any:
        """Scores of all items, unknown ones included, or of one.

        Args:
            user_idx: index of the user; looked at only without `history_items`. An unknown user gets the scores of nobody
                in particular.
            item_idx: index of an item; None for all.
            history_items: indices of the items of the session so far, oldest first; items that came after the fit are
                left out.

        Returns:
            Array of shape `(total_items,)`, float32; or one number. Where Cornac learned of items after the fit, only those
            of the training set, `(num_items,)`: Cornac then puts the others last.

        Raises:
            ScoreException: Cornac's own, if `item_idx` came after the fit.
        """
        if self.recommender is None:
            raise NotFittedError("This MecoldRecommender is not fitted yet: call fit(train_set) first.")
        known = len(self._ids)  # Cornac may have learned of items since
        if history_items is not None:
            state = self.recommender.adapt_user([self._ids[item] for item in history_items if item < known])
        elif self._log is not None and len(history := self._log.filter(pl.col("user_id") == int(user_idx))):
            state = self.recommender.adapt_users(history)[int(user_idx)]
        else:
            state = self.recommender.adapt_user([])
        if item_idx is not None:
            if item_idx >= known:
                raise ScoreException(f"Item {item_idx} came after the fit: mecold knows nothing of it.")
            return float(self.recommender.scores(state, [self._ids[item_idx]])[0])
        scores = self.recommender.scores(state, self._ids)
        return scores if len(scores) == self.total_items else scores[: self.num_items]  # items that came after the fit

    def __deepcopy__(self, memo: dict[int, Any]) -> "MecoldRecommender":
        made: MecoldRecommender = super().__deepcopy__(memo)
        made.recommender = self.recommender
        return made

    def __getstate__(self) -> Mapping[str, Any]:
        sets = ("train_set", "val_set", "test_set")
        state = {name: value for name, value in self.__dict__.items() if name not in sets}
        return {**state, "recommender": pack(self.recommender)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        encoder = state["encoder"] if not isinstance(state["encoder"], str) else None
        self.__dict__.update(state, recommender=unpack(state["recommender"], encoder))


def _ids(index_of: Mapping[Any, int], size: int) -> list[ItemId]:
    """The first raw ids of one of Cornac's maps, by index."""
    return [_plain(raw) for raw, _ in sorted(index_of.items(), key=lambda pair: pair[1])[:size]]


def _plain(raw: Any) -> ItemId:
    plain: ItemId = raw.item() if isinstance(raw, np.generic) else raw
    return plain


def _log(data: Dataset, ids: Sequence[ItemId], *, by_session: bool, rated: bool) -> pl.DataFrame:
    """Interactions: of sessions or of users by index, with raw ids of items."""
    users, items, ratings = data.uir_tuple
    log = {"user_id": data.session_indices if by_session else users, "item_id": [ids[item] for item in items.tolist()]}
    if data.timestamps is not None:
        log["timestamp"] = np.asarray(data.timestamps, np.float64)
    if rated:
        log["rating"] = ratings
    return pl.DataFrame(log)
