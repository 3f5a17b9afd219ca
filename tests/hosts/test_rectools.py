"""mecold inside RecTools, by RecTools' own conventions and its cross-validation (`make hosts`)."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from implicit.als import AlternatingLeastSquares

rectools = pytest.importorskip("rectools", reason="RecTools has an environment of its own: make hosts")

from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG
from rectools.model_selection import LastNSplitter, cross_validate
from rectools.models import ImplicitALSWrapperModel, PopularModel, load_model, model_from_config

from mecold import DataWarning, Recommender
from mecold.shop import Shop
from mecold_adapters import FactorModel
from mecold_adapters.rectools import MecoldModel

pytestmark = pytest.mark.filterwarnings("ignore")


def frame_of(log: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            Columns.User: log["user_id"].to_list(),
            Columns.Item: log["item_id"].to_list(),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(log["timestamp"].to_numpy(), unit="s"),
        }
    )


@pytest.fixture(scope="module")
def parts(shop: Shop) -> tuple[Dataset, Dataset]:
    """A data set to fit on, and one of other users, with an item that the first does not have."""
    number = shop.interactions["user_id"].rank("dense")
    seen, strangers = (frame_of(shop.interactions.filter(which)) for which in (number % 5 != 0, number % 5 == 0))
    strangers.loc[len(strangers)] = [strangers[Columns.User][0], "unheard of", 1.0, pd.Timestamp("2030-01-01")]
    return Dataset.construct(seen), Dataset.construct(strangers)


@pytest.fixture(scope="module")
def model(parts, shop: Shop, tmp_path_factory) -> MecoldModel:
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    shop.items.write_parquet(path)
    return MecoldModel(items=path).fit(parts[0])


def histories(dataset: Dataset) -> pd.Series:
    raw = dataset.get_raw_interactions().sort_values(Columns.Datetime, kind="stable")
    return raw.groupby(Columns.User)[Columns.Item].agg(list)


@pytest.mark.parametrize("filter_viewed", [True, False])
def test_users_it_was_not_fitted_on_are_hot(model, parts, filter_viewed):
    strangers = parts[1]
    users = strangers.user_id_map.external_ids[6::-1]
    found = model.recommend(users, strangers, k=10, filter_viewed=filter_viewed)
    assert list(found.columns) == [Columns.User, Columns.Item, Columns.Score, Columns.Rank]
    assert found[Columns.User].unique().tolist() == users.tolist()
    assert set(found[Columns.Item]) <= set(strangers.item_id_map.external_ids)
    seen = histories(strangers)
    theirs = {item for item in strangers.item_id_map.external_ids.tolist() if item != "unheard of"}
    for user, part in found.groupby(Columns.User):
        assert part[Columns.Rank].tolist() == list(range(1, 11))
        assert part[Columns.Score].is_monotonic_decreasing
        assert not filter_viewed or not set(part[Columns.Item]) & set(seen[user])
        state = model.recommender.adapt_users(pl.DataFrame(frame_of_user(strangers, user)), on_unknown="drop")[0]
        expected = model.recommender.recommend(state, 10, among=theirs, include_seen=not filter_viewed)
        assert part[Columns.Item].tolist() == [one.item for one in expected]


def frame_of_user(dataset: Dataset, user: str) -> dict[str, list]:
    raw = dataset.get_raw_interactions()
    raw = raw[raw[Columns.User] == user]
    times = raw[Columns.Datetime].to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6
    return {"user_id": [0] * len(raw), "item_id": raw[Columns.Item].tolist(), "timestamp": times.tolist()}


def test_cold_users_get_the_list_of_nobody_and_candidates_are_kept(model, parts):
    wanted = parts[0].item_id_map.external_ids[5:25].tolist()
    known = parts[0].user_id_map.external_ids[0]
    found = model.recommend(
        [known, "somebody new"], parts[0], k=5, filter_viewed=True, items_to_recommend=[*wanted, "no such item"]
    )
    assert set(found[Columns.Item]) <= set(wanted)
    cold = found[found[Columns.User] == "somebody new"][Columns.Item].tolist()
    ours = model.recommender
    assert cold == [one.item for one in ours.recommend(ours.adapt_user([]), 5, among=wanted)]


def test_similar_items(model, parts):
    item = parts[0].item_id_map.external_ids[3]
    found = model.recommend_to_items([item], parts[0], k=5)
    assert found[Columns.Item].tolist() == [one.item for one in model.recommender.similar_items(item, 5)]
    with_itself = model.recommend_to_items([item], parts[0], k=5, filter_itself=False)[Columns.Item].tolist()
    assert with_itself == [item, *found[Columns.Item].tolist()[:4]]
    few = found[Columns.Item].tolist()[1:3]
    assert model.recommend_to_items([item], parts[0], k=5, items_to_recommend=few)[Columns.Item].tolist() == few


def test_it_beats_popularity_in_cross_validation(shop, model):
    result = cross_validate(
        dataset=Dataset.construct(frame_of(shop.interactions)),
        splitter=LastNSplitter(n=2, n_splits=1, filter_cold_users=False),
        metrics={"ndcg": NDCG(k=10)},
        models={"mecold": MecoldModel(items=shop.items), "popular": PopularModel()},
        k=10,
        filter_viewed=True,
    )
    scores = {row["model"]: row["ndcg"] for row in result["metrics"]}
    assert scores["mecold"] > 1.5 * scores["popular"]


def test_config_and_files(model, parts, shop, tmp_path):
    config = model.get_config(simple_types=True)
    assert config["items"].endswith("items.parquet")
    again = model_from_config(config)
    assert isinstance(again, MecoldModel) and again.get_params() == model.get_params() and not again.is_fitted
    with pytest.raises(TypeError, match="`items` was given as an object"):
        MecoldModel(items=shop.items).get_config()
    model.save(tmp_path / "model")
    users = parts[1].user_id_map.external_ids[:3]
    pd.testing.assert_frame_equal(
        load_model(tmp_path / "model").recommend(users, parts[1], k=5, filter_viewed=True),
        model.recommend(users, parts[1], k=5, filter_viewed=True),
    )


def test_nothing_changes_the_data_set(parts, shop):
    before = parts[0].get_raw_interactions()
    made = MecoldModel(items=shop.items).fit(parts[0])
    made.recommend(parts[0].user_id_map.external_ids[:3], parts[0], k=5, filter_viewed=True)
    made.recommend_to_items(parts[0].item_id_map.external_ids[:3], parts[0], k=5)
    pd.testing.assert_frame_equal(before, parts[0].get_raw_interactions())


def test_vectors_of_a_hosts_model_give_its_scores(parts, shop):
    data = parts[0]
    model = ImplicitALSWrapperModel(AlternatingLeastSquares(factors=8, iterations=3, random_state=0)).fit(data)
    users, items = model.get_vectors()
    warm = FactorModel(data.item_id_map.external_ids, items, data.user_id_map.external_ids, users)
    some = data.user_id_map.external_ids[:4].tolist()
    theirs = model.recommend(some, data, k=5, filter_viewed=False)
    for user, mine in zip(some, warm.scores(some), strict=True):
        asked = theirs[theirs[Columns.User] == user]
        columns = data.item_id_map.convert_to_internal(asked[Columns.Item])
        np.testing.assert_allclose(mine[columns], asked[Columns.Score], rtol=1e-4)
    recommender = Recommender(rng=0)
    recommender.fit_meta(shop.interactions, shop.items, factors=warm.to_factors())
    assert recommender.info()["channels"]["host"] == 8


@pytest.mark.parametrize("kind", ["strings", "shuffled integers"])
def test_any_ids_and_short_catalogues(kind, shop):
    log, items = shop.interactions, shop.items
    if kind != "strings":
        number = dict(zip(items["item_id"], np.random.default_rng(0).permutation(10**6).tolist(), strict=False))
        log, items = (one.with_columns(pl.col("item_id").replace_strict(number)) for one in (log, items))
    dataset = Dataset.construct(frame_of(log))
    made = MecoldModel(items=items).fit(dataset)
    user = dataset.user_id_map.external_ids[0]
    found = made.recommend([user], dataset, k=10_000, filter_viewed=True)[Columns.Item].tolist()
    assert set(found) == set(dataset.item_id_map.external_ids) - set(histories(dataset)[user])


def test_targets_that_it_cannot_serve_are_told(model, parts):
    """A user or an item that no data set has is cold, and is served; an item that came after the fit is not."""
    late = parts[1]
    with pytest.warns(DataWarning, match="1 target items came after the fit"):
        found = model.recommend_to_items(["unheard of", late.item_id_map.external_ids[0]], late, k=5)
    assert found[Columns.TargetItem].unique().tolist() == [late.item_id_map.external_ids[0]]
    cold = model.recommend(["nobody at all"], late, k=5, filter_viewed=True, on_unsupported_targets="raise")
    assert len(cold) == 5
