"""mecold inside LensKit, by LensKit's own tests for its scorers and in its own pipelines (`make hosts`)."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

lenskit = pytest.importorskip("lenskit", reason="LensKit has an environment of its own: make hosts")

from lenskit import batch, operations
from lenskit.data import Dataset, ItemList, RecQuery, from_interactions_df
from lenskit.data.builder import DatasetBuilder
from lenskit.metrics import NDCG, RunAnalysis
from lenskit.pipeline import topn_pipeline
from lenskit.splitting import SampleN, sample_users
from lenskit.testing import BasicComponentTests, ScorerTests

from mecold import NotFittedError
from mecold.shop import Shop
from mecold_adapters.lenskit import MecoldScorer

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session")
def ml_ratings(shop: Shop) -> pd.DataFrame:
    """LensKit's tests ask for MovieLens under this name; the generated shop stands in, with integer ids."""
    log = shop.interactions.with_columns(
        pl.col("user_id").rank("dense").cast(pl.Int64), pl.col("item_id").str.slice(1).cast(pl.Int64)
    )
    clock = pd.to_datetime(log["timestamp"].to_numpy(), unit="s")
    return pd.DataFrame(
        {"user_id": log["user_id"].to_numpy(), "item_id": log["item_id"].to_numpy(), "rating": 4.0, "timestamp": clock}
    )


@pytest.fixture(scope="session")
def ml_100k(ml_ratings: pd.DataFrame) -> pd.DataFrame:
    """Their two tests of accuracy on MovieLens skip: nothing is expected of this shop, and a score of ours is no rating."""
    return ml_ratings


@pytest.fixture(scope="session")
def ml_ds(ml_ratings: pd.DataFrame) -> Dataset:
    return from_interactions_df(ml_ratings)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def texts(shop: Shop, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    shop.items.with_columns(pl.col("item_id").str.slice(1).cast(pl.Int64)).write_parquet(path)
    return str(path)


class TestLensKitsOwn(BasicComponentTests, ScorerTests):
    component = MecoldScorer
    configs = ({"liked_from": 3.0}, {"items": "items.parquet", "seed": 3})
    can_score = "known"


def test_an_unseen_user_is_answered_from_the_history(ml_ds, texts):
    pipe = topn_pipeline(MecoldScorer(items=texts))
    pipe.train(ml_ds)
    history = ItemList(item_ids=[1, 2, 3])
    found = operations.recommend(pipe, RecQuery(history_items=history), 10)
    ids = found.ids().tolist()
    assert len(ids) == 10 and not {1, 2, 3} & set(ids)
    scorer = pipe.component("scorer")
    ours = scorer.recommender_
    assert ids == [one.item for one in ours.recommend(ours.adapt_user([1, 2, 3]), 10)]
    assert ids != operations.recommend(pipe, RecQuery(history_items=ItemList(item_ids=[50, 60, 70])), 10).ids().tolist()


def test_cold_users_in_lenskits_evaluation_beat_a_random_ranking(ml_ds, texts, rng):
    split = sample_users(ml_ds, 100, SampleN(5, rng=rng), rng=rng)
    pipe = topn_pipeline(MecoldScorer(items=texts))
    pipe.train(split.train)
    recs = batch.recommend(pipe, split.test, 10)
    analysis = RunAnalysis()
    analysis.add_metric(NDCG(10))
    ndcg = analysis.measure(recs, split.test).list_summary().loc["NDCG@10", "mean"]
    assert ndcg > 0.05


def test_texts_of_the_data_set_are_read(ml_ratings, shop):
    builder = DatasetBuilder()
    ids = shop.items["item_id"].str.slice(1).cast(pl.Int64).to_numpy()
    builder.add_entities("item", ids)
    builder.add_scalar_attribute("item", "title", ids, shop.items["title"].to_list())
    builder.add_interactions("rating", ml_ratings, entities=["user", "item"], missing="insert", default=True)
    scorer = MecoldScorer()
    scorer.train(builder.build())
    assert scorer.recommender_.text_of(int(ids[0])) == shop.items["title"][0]


def test_an_untrained_scorer_says_so():
    with pytest.raises(NotFittedError, match="train the pipeline"):
        MecoldScorer()(RecQuery(), ItemList(item_ids=[1]))
