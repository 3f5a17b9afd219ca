"""mecold inside LensKit, by LensKit's own tests for its scorers and in its own pipelines (`make hosts`)."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

lenskit = pytest.importorskip("lenskit", reason="LensKit has an environment of its own: make hosts")

from lenskit import batch, operations
from lenskit.als import ImplicitMFScorer
from lenskit.basic import PopScorer
from lenskit.data import Dataset, DatasetBuilder, ItemList, ItemListCollection, RecQuery, from_interactions_df
from lenskit.metrics import NDCG, RunAnalysis
from lenskit.pipeline import topn_pipeline
from lenskit.testing import BasicComponentTests, ScorerTests

from mecold import NotFittedError, Recommender
from mecold.shop import Shop
from mecold_adapters import FactorModel
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


def test_cold_users_beat_popularity_in_lenskits_batches(ml_ratings, texts):
    cold = ml_ratings["user_id"] % 5 == 0
    seen = ml_ratings[~cold]
    ordered = ml_ratings[cold].sort_values(["user_id", "timestamp"])
    ordered = ordered[ordered["item_id"].isin(seen["item_id"])]
    place = ordered.groupby("user_id").cumcount()
    first, later = ordered[place < 3], ordered[place >= 3].groupby("user_id")["item_id"].agg(set)
    histories = {user: part for user, part in first.groupby("user_id") if user in later.index}
    queries = [
        RecQuery(user_id=user, history_items=ItemList(item_ids=part["item_id"], timestamp=part["timestamp"]))
        for user, part in histories.items()
    ]
    truth = ItemListCollection(["user_id"])
    for user in histories:
        truth.add(ItemList(sorted(later[user])), user_id=user)
    found = []
    for scorer in (MecoldScorer(items=texts), PopScorer()):
        pipe = topn_pipeline(scorer)
        pipe.train(from_interactions_df(seen))
        lists = batch.recommend(pipe, queries, 10)
        assert len(lists) == len(queries) > 50
        analysis = RunAnalysis()
        analysis.add_metric(NDCG(n=10))
        found.append(analysis.measure(lists, truth).list_metrics()["NDCG@10"].mean())
    assert found[0] > 1.5 * found[1]


@pytest.mark.parametrize("kind", ["strings", "shuffled integers"])
def test_any_ids_short_catalogues_and_strangers(kind, ml_ratings, shop):
    rng = np.random.default_rng(0)
    ids = shop.items["item_id"].str.slice(1).cast(pl.Int64).to_list()
    new = [f"item {one}" for one in ids] if kind == "strings" else rng.permutation(10**6)[: len(ids)].tolist()
    number = dict(zip(ids, new, strict=True))
    log = ml_ratings.assign(item_id=ml_ratings["item_id"].map(number))
    data = from_interactions_df(log)
    before = [log.copy(), data.interaction_table(format="pandas")]
    pipe = topn_pipeline(MecoldScorer())
    pipe.train(data)
    there = set(log["item_id"])
    mine = sorted(there)[:3]
    found = operations.recommend(pipe, RecQuery(user_id=10**9, history_items=ItemList(mine)), 10_000)
    assert set(found.ids().tolist()) == there - set(mine)
    nobody = operations.recommend(pipe, RecQuery(user_id=10**9), 5).ids().tolist()
    ours = pipe.component("scorer").recommender_
    assert nobody == [one.item for one in ours.recommend(ours.adapt_user([]), 5)]
    pd.testing.assert_frame_equal(log, before[0])
    pd.testing.assert_frame_equal(data.interaction_table(format="pandas"), before[1])


def test_vectors_of_a_hosts_model_give_its_scores(ml_ds, shop):
    host = ImplicitMFScorer(features=8, epochs=3)
    host.train(ml_ds)
    items, users = (part.ids().tolist() for part in (host.items, host.users))
    warm = FactorModel(items, np.asarray(host.item_embeddings), users, np.asarray(host.user_embeddings))
    for user in users[:3]:
        theirs = host(RecQuery(user_id=user), ItemList(items[:50])).scores()
        np.testing.assert_allclose(warm.scores([user])[0][:50], theirs, rtol=1e-4, atol=1e-6)
    log, described = (
        one.with_columns(pl.col("item_id").str.slice(1).cast(pl.Int64)) for one in (shop.interactions, shop.items)
    )
    recommender = Recommender(rng=0)
    recommender.fit_meta(log, described, factors=warm.to_factors())
    assert recommender.info()["channels"]["host"] == 8


@pytest.mark.parametrize("unit", ["s", "ns"])
def test_times_order_a_history_whatever_their_unit(ml_ds, unit):
    scorer = MecoldScorer()
    times = np.array(["2020-01-03", "2020-01-01", "2020-01-02"], f"datetime64[{unit}]")
    read = scorer._history(RecQuery(history_items=ItemList(item_ids=[1, 2, 3], timestamp=times)))
    assert [one.time for one in read] == [1578009600.0, 1577836800.0, 1577923200.0]
    times[1] = np.datetime64("NaT")
    read = scorer._history(RecQuery(history_items=ItemList(item_ids=[1, 2, 3], timestamp=times)))
    assert [one.time for one in read] == [None] * 3


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
