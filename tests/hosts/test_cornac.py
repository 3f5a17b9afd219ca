"""mecold inside Cornac and Cornac's vectors inside mecold, in Cornac's own experiments (`make hosts`)."""

import copy

import numpy as np
import polars as pl
import pytest

cornac = pytest.importorskip("cornac", reason="Cornac has an environment of its own: make hosts")

from cornac.data import Dataset
from cornac.eval_methods import NextItemEvaluation, RatioSplit
from cornac.exception import ScoreException
from cornac.experiment.experiment import Experiment
from cornac.metrics import NDCG, Recall
from cornac.models import BPR, EASE, MF, PMF, MostPop, SPop
from cornac.models import Recommender as CornacModel

from mecold import InvalidDataError, NotFittedError, Recommender
from mecold.shop import Shop
from mecold_adapters import NeighbourModel
from mecold_adapters.cornac import MecoldRecommender, warm_model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Cornac's experiments leave a log in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def split(shop: Shop) -> NextItemEvaluation:
    """Sessions of some users to learn from, of others to test on."""
    log = shop.interactions.sort("user_id", "timestamp")
    number = log["user_id"].rank("dense")
    parts = [
        list(part.select("user_id", "item_id", pl.col("timestamp").cast(pl.Int64)).iter_rows())
        for part in (log.filter(number % 5 != 0), log.filter(number % 5 == 0))
    ]
    return NextItemEvaluation.from_splits(train_data=parts[0], test_data=parts[1], fmt="SIT", mode="last")


@pytest.fixture(scope="module")
def trained(split: NextItemEvaluation, shop: Shop) -> MecoldRecommender:
    return MecoldRecommender(items=shop.items).fit(split.train_set)


@pytest.fixture(scope="module")
def ratings(shop: Shop) -> list[tuple[str, str, float, int]]:
    log = shop.interactions.sort("timestamp")
    return [
        (user, item, 1.0, int(time)) for user, item, time in log.select("user_id", "item_id", "timestamp").iter_rows()
    ]


def test_it_beats_popularity_in_cornacs_experiment(split, shop, capsys):
    experiment = Experiment(
        split, [MecoldRecommender(items=shop.items), SPop()], [NDCG(k=10), Recall(k=10)], verbose=False
    )
    experiment.run()
    ours, popular = (one.metric_avg_results["NDCG@10"] for one in experiment.result)
    assert ours > 1.5 * popular
    assert "mecold" in capsys.readouterr().out


def test_scores_are_mecolds_own_in_cornacs_order(trained):
    ids = list(trained.iid_map)
    found = trained.score(0, history_items=[3, 1, 4])
    ours = trained.recommender
    state = ours.adapt_user([ids[3], ids[1], ids[4]])
    best = [one.item for one in ours.recommend(state, 10, include_seen=True)]
    assert found.shape == (trained.total_items,) and found.dtype == np.float32
    assert [ids[place] for place in np.argsort(-found, kind="stable")[:10]] == best
    assert trained.score(0, 7, history_items=[3, 1, 4]) == pytest.approx(float(found[7]), rel=1e-5)
    ranked, _ = trained.rank(0, k=5, history_items=[3, 1, 4])
    assert [ids[place] for place in ranked[:5]] == best[:5]
    np.testing.assert_array_equal(trained.score(10**6), trained.score(10**6 + 1))  # of nobody in particular


def test_users_of_a_training_set_are_scored_by_their_history(shop, ratings):
    method = RatioSplit(ratings, test_size=0.2, fmt="UIRT", exclude_unknowns=True, seed=1, verbose=False)
    experiment = Experiment(method, [MecoldRecommender(items=shop.items), MostPop()], [NDCG(k=10)], verbose=False)
    experiment.run()
    ours, popular = (one.metric_avg_results["NDCG@10"] for one in experiment.result)
    assert ours > popular
    model = experiment.models[0]
    user = next(iter(model.uid_map))
    items, _, times = method.train_set.chrono_user_data[model.uid_map[user]]
    ids, recommender = list(model.iid_map), model.recommender
    history = pl.DataFrame({"user_id": 0, "item_id": [ids[one] for one in items], "timestamp": times})
    state = recommender.adapt_users(history)[0]
    np.testing.assert_array_equal(model.score(model.uid_map[user]), recommender.scores(state, ids))
    assert len(model.recommend(user, k=5, remove_seen=True, train_set=method.train_set)) == 5


def test_it_is_copied_cloned_and_saved_as_cornacs_models_are(trained, tmp_path):
    expected = trained.score(0, history_items=[3, 1, 4])
    np.testing.assert_array_equal(copy.deepcopy(trained).score(0, history_items=[3, 1, 4]), expected)
    trained.save(str(tmp_path))
    again = CornacModel.load(str(tmp_path / "mecold"))
    np.testing.assert_allclose(again.score(0, history_items=[3, 1, 4]), expected, rtol=1e-5)
    clone = trained.clone({"seed": 5})
    assert clone.seed == 5 and not clone.is_fitted
    with pytest.raises(NotFittedError, match="fit"):
        clone.score(0)


def with_ids(ratings, kind):
    """The same ratings under other ids: as they are, or as shuffled integers."""
    if kind == "strings":
        return ratings, {}
    rng = np.random.default_rng(0)
    users, items = (sorted({row[side] for row in ratings}) for side in (0, 1))
    user, item = (dict(zip(one, rng.permutation(10 * len(one)).tolist(), strict=False)) for one in (users, items))
    return [(user[u], item[i], *rest) for u, i, *rest in ratings], item


@pytest.mark.parametrize("kind", ["strings", "shuffled integers"])
@pytest.mark.parametrize("make", [MF, PMF, BPR])
def test_vectors_give_the_hosts_scores(make, kind, ratings):
    data = Dataset.from_uirt(with_ids(ratings, kind)[0], seed=1)
    model = make(k=8, max_iter=5, seed=1).fit(data)
    before = {name: value.copy() for name, value in vars(model).items() if isinstance(value, np.ndarray)}
    warm = warm_model(model)
    users = list(model.uid_map)[:20]
    theirs = np.stack([model.score(model.uid_map[user]) for user in users])
    np.testing.assert_allclose(warm.scores(users), theirs, rtol=1e-4, atol=1e-5)
    difference = warm_model(model, exact=False).scores(users) - theirs
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=2e-4)
    assert list(warm.item_ids) == list(model.iid_map)
    assert warm.to_factors().item.shape == (len(model.iid_map), 8)  # biases stay behind
    assert before
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(model, name), value)


@pytest.mark.parametrize("kind", ["strings", "shuffled integers"])
def test_a_hosts_vectors_are_the_collaborative_channel(kind, ratings, shop):
    """Whatever the ids; items that the host does not know live on their texts."""
    rows, number = with_ids(ratings, kind)
    first = rows[0][1]
    model = MF(k=8, max_iter=5, seed=1).fit(Dataset.from_uirt([row for row in rows if row[1] != first], seed=1))
    items = shop.items.with_columns(pl.col("item_id").replace_strict(number)) if number else shop.items
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    made = Recommender(rng=0)
    made.fit_meta(log, items, factors=warm_model(model).to_factors())
    assert made.info()["channels"]["host"] == 8
    found = [one.item for one in made.recommend(made.adapt_user([rows[5][1]]), k=10_000)]
    assert first in found and len(found) == len(items) - 1


@pytest.mark.parametrize("kind", ["strings", "shuffled integers"])
def test_any_ids_short_catalogues_and_strangers(kind, ratings, shop):
    rows, number = with_ids(ratings, kind)
    items = shop.items.with_columns(pl.col("item_id").replace_strict(number)) if number else shop.items
    data = Dataset.from_uirt(rows, seed=1)
    before = [part.copy() for part in data.uir_tuple]
    model = MecoldRecommender(items=items).fit(data)
    user = rows[0][0]
    found = model.recommend(user, k=-1, remove_seen=True, train_set=data)
    mine = {row[1] for row in rows if row[0] == user}
    assert set(found) == set(model.iid_map) - mine
    late = model.score(0, history_items=[3, len(model.iid_map) + 5])  # Cornac may learn of items after the fit
    np.testing.assert_array_equal(late, model.score(0, history_items=[3]))
    with pytest.raises(ScoreException, match="after the fit"):
        model.score(0, len(model.iid_map) + 5)
    np.testing.assert_array_equal(model.score(10**6), model.score(10**6, history_items=[]))
    for part, old in zip(data.uir_tuple, before, strict=True):
        np.testing.assert_array_equal(part, old)


def test_an_item_item_model_is_taken_by_its_matrices(ratings):
    model = EASE().fit(Dataset.from_uirt(ratings, seed=1))
    with pytest.raises(InvalidDataError, match="EASE is an item-item model"):
        warm_model(model)
    users = list(model.uid_map)[:20]
    warm = NeighbourModel(list(model.iid_map), model.B, list(model.uid_map), model.U)
    theirs = np.stack([np.asarray(model.score(model.uid_map[user])).ravel() for user in users])
    ours = warm.scores(users)
    np.testing.assert_allclose(np.where(np.isfinite(ours), ours, theirs), theirs, atol=1e-5)


def test_what_cannot_be_taken_is_told():
    with pytest.raises(InvalidDataError, match="MostPop hands out no vectors"):
        warm_model(MostPop())
    with pytest.raises(InvalidDataError, match="MF is not fitted"):
        warm_model(MF())
