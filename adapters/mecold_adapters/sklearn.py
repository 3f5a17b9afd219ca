"""scikit-learn: mecold as an estimator whose rows are interactions, for pipelines of parameters and grid searches.

search = GridSearchCV(MecoldEstimator(items), {"config": [MetaConfig(), MetaConfig(text_rank=32)]}, cv=GroupKFold(3))
search.fit(log, groups=log["user_id"])          # users of a test fold are new to the model, as they are in life
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch

from mecold import Encoder, InvalidDataError, MetaConfig, Recommender, TextTemplate
from mecold.data.frames import FrameLike, read_frame, require
from mecold.math.metrics import ndcg
from mecold_adapters.about import SKLEARN
from mecold_adapters.packing import pack, unpack

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise SKLEARN.missing() from error
SKLEARN.warn_unless_supported()


class MecoldEstimator(BaseEstimator):  # type: ignore[misc]
    """mecold with scikit-learn's interface.

    X is a frame (pandas or polars) of interactions as in `Recommender.fit_meta`, one row each; y is not used.

    Args:
        items: frame or path of the items, the same for every fit.
        config: settings of the meta-learning.
        encoder: turns texts into vectors; mecold's default where None.
        template: which item columns make the text.
        shots: `score` gives each user's first so many items as the support.
        k: length of the lists of `predict`, and depth of nDCG in `score`.
        random_state: seed of everything random.

    Attributes:
        recommender_: the fitted `mecold.Recommender`.
        report_: the record of the fit.
    """

    def __init__(
        self,
        items: FrameLike = None,
        *,
        config: MetaConfig | None = None,
        encoder: Encoder | None = None,
        template: TextTemplate | None = None,
        shots: int = 5,
        k: int = 10,
        random_state: int = 0,
    ) -> None:
        self.items = items
        self.config = config
        self.encoder = encoder
        self.template = template
        self.shots = shots
        self.k = k
        self.random_state = random_state

    def fit(self, X: FrameLike, y: Any = None) -> "MecoldEstimator":  # noqa: ARG002 - scikit-learn's signature
        """Meta-learn from interactions.

        Raises:
            InvalidDataError: if `items` is missing, or a frame cannot be used.
        """
        if self.items is None:
            raise InvalidDataError("MecoldEstimator needs the items: MecoldEstimator(items).")
        recommender = Recommender(
            self.encoder, config=self.config, template=self.template, rng=self.random_state
        )  # fmt: skip
        self.report_ = recommender.fit_meta(X, self.items)
        self.recommender_ = recommender
        return self

    def predict(self, X: FrameLike) -> pl.DataFrame:
        """Recommend to the users of these interactions: `user_id`, `rank`, `item_id`, `score`."""
        check_is_fitted(self)
        return self.recommender_.recommend_batch(X, self.k, on_unknown="drop")

    def score(self, X: FrameLike, y: Any = None) -> float:  # noqa: ARG002 - scikit-learn's signature
        """Mean nDCG@k of what users liked after their first `shots` items; users with no more than that do not count.

        Raises:
            InvalidDataError: if no user has more than `shots` items, or the rows have no `timestamp` or `position`.
        """
        check_is_fitted(self)
        frame = read_frame(X, "interactions")
        require(frame, ["user_id", "item_id"], "interactions")
        clock = next((name for name in ("timestamp", "position") if name in frame.columns), None)
        if clock is None:
            raise InvalidDataError("score needs a `timestamp` or `position` column: what came first is the support.")
        ordered = frame.sort(["user_id", clock], maintain_order=True).unique(
            ["user_id", "item_id"], keep="first", maintain_order=True
        )
        ordered = ordered.with_columns(pl.int_range(pl.len()).over("user_id").alias("_place"))
        support, later = ordered.filter(pl.col("_place") < self.shots), ordered.filter(pl.col("_place") >= self.shots)
        if self.config is not None and self.config.liked_from is not None:
            require(frame, ["rating"], "interactions (MetaConfig.liked_from reads it)")
            later = later.filter(pl.col("rating") >= self.config.liked_from)
        if later.is_empty():
            raise InvalidDataError(
                f"No user has more than shots={self.shots} items that were liked: there is nothing to score."
            )
        wanted = later.group_by("user_id").agg(pl.col("item_id"))
        support = support.join(wanted.select("user_id"), on="user_id", how="semi").drop("_place")
        users = [] if self.shots else wanted["user_id"].to_list()
        ranked = self.recommender_.recommend_batch(support, self.k, users=users, on_unknown="drop")
        lists = dict(ranked.group_by("user_id").agg("item_id").iter_rows())
        hits = np.zeros((wanted.height, self.k), bool)
        for row, (user, items) in enumerate(wanted.iter_rows()):
            found = lists.get(user, [])
            hits[row, : len(found)] = np.isin(found, items)
        sizes = torch.from_numpy(wanted["item_id"].list.len().to_numpy().astype(np.int64))
        return float(ndcg(torch.from_numpy(hits), sizes).mean())

    def __getstate__(self) -> Mapping[str, Any]:
        state = super().__getstate__()
        return {**state, "recommender_": pack(self.recommender_)} if "recommender_" in state else state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        if packed := state.get("recommender_"):
            state = {**state, "recommender_": unpack(packed, state["encoder"])}
        super().__setstate__(state)
