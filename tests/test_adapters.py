"""Adapters, against the real libraries."""

import copy
import hashlib
import json
import pickle
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import implicit.cpu.bpr
import implicit.cpu.lmf
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicit.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from lightfm import LightFM
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.utils import estimator_checks
from typer.testing import CliRunner

import mecold.plugins as plugins
import mecold_adapters.about
from mecold import InvalidDataError, MetaConfig, NotFittedError, Recommender, UnknownItemError
from mecold.cli.main import app
from mecold.cli.terminal import out
from mecold_adapters import ColdStartRouter, FactorModel, NeighbourModel, WarmModel
from mecold_adapters.implicit import LEFT_OUT, MecoldRecommender, warm_model
from mecold_adapters.router import _rising
from mecold_adapters.sklearn import MecoldEstimator
from mecold_adapters.warm import Factors, FoldIn
from tests.conftest import SMALL

SDIST = (  # implicit's tests are not in its wheel
    "https://files.pythonhosted.org/packages/32/24/bdaa4be7fcfb568d63e0ddff948c486515c6b728055ee060f3f131803476/"
    "implicit-0.7.3.tar.gz",
    "9571a52d70b3667e99a6e6aae6681526dd3286c765cf0ea10e1073d068a98057",
)


@pytest.fixture(scope="module")
def matrix(shop) -> tuple[sp.csr_matrix, list, list]:
    """The shop's log as a matrix, with item ids in the order of the items and user ids sorted."""
    items, users = shop.items["item_id"].to_list(), sorted(shop.interactions["user_id"].unique().to_list())
    column, row = {item: i for i, item in enumerate(items)}, {user: i for i, user in enumerate(users)}
    pairs = shop.interactions.select("user_id", "item_id").unique().sort("user_id", "item_id")
    at = [row[u] for u in pairs["user_id"]], [column[i] for i in pairs["item_id"]]
    return sp.csr_matrix((np.ones(len(at[0]), np.float32), at), (len(users), len(items))), items, users


@pytest.fixture(scope="module")
def als(matrix):
    model = AlternatingLeastSquares(factors=16, iterations=5, random_state=0, num_threads=1)
    model.fit(matrix[0], show_progress=False)
    return model


@pytest.fixture(scope="module")
def recommender(shop, encoder) -> Recommender:
    made = Recommender(encoder, config=SMALL, rng=0)
    made.fit_meta(shop.interactions, shop.items)
    return made


# ---- from a host


@pytest.mark.parametrize(
    "host",
    [
        lambda: AlternatingLeastSquares(factors=8, iterations=3, random_state=0),
        lambda: implicit.cpu.bpr.BayesianPersonalizedRanking(factors=8, iterations=3, random_state=0),
        lambda: implicit.cpu.lmf.LogisticMatrixFactorization(factors=8, iterations=3, random_state=0),
        lambda: CosineRecommender(K=20),
        lambda: BM25Recommender(K=20),
    ],
)
@pytest.mark.parametrize("ids", ["strings", "shuffled integers"])
def test_imported_scores_are_the_hosts_own(host, ids, matrix):
    user_items, items, users = matrix
    if ids != "strings":
        rng = np.random.default_rng(0)
        items, users = (rng.permutation(10 * len(names))[: len(names)].tolist() for names in (items, users))
    model = host()
    model.fit(user_items, show_progress=False)
    before = {name: pickle.dumps(value) for name, value in vars(model).items() if name not in ("solver", "scorer")}
    warm = warm_model(model, items, users, user_items)
    assert isinstance(warm, WarmModel) and isinstance(warm, Factors) != isinstance(warm, NeighbourModel)
    ours, folding = warm.scores(users[:20]), isinstance(warm, FoldIn)
    folded = warm.scores_of([[items[i] for i in user_items[row].indices] for row in range(20)]) if folding else None
    assert before.keys() >= {"K"} or before.keys() >= {"item_factors", "user_factors"}
    assert before == {name: pickle.dumps(getattr(model, name)) for name in before}, "the host was changed"
    again = {} if isinstance(warm, NeighbourModel) else {"recalculate_user": True}
    for mine, how in ((ours, {}), (folded, again)):
        if mine is None:
            continue
        ids, scores = model.recommend(
            np.arange(20), user_items[:20], N=len(items), filter_already_liked_items=False, **how
        )
        there = scores > LEFT_OUT  # implicit fills up with items that it has nothing to say of
        assert there.any(1).all()
        np.testing.assert_allclose(np.take_along_axis(mine, ids, 1)[there], scores[there], rtol=1e-4, atol=1e-5)
    assert isinstance(warm, FoldIn) == (not type(model).__name__.startswith(("Bayesian", "Logistic")))


class OnAGpu:
    """implicit's matrices on a GPU, as far as they are read."""

    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        return self.values


def test_factors_on_a_gpu_are_fetched(matrix, als):
    def folded(users, rows):
        return OnAGpu(als.recalculate_user(users, rows))

    item, user = (OnAGpu(side) for side in (als.item_factors, als.user_factors))
    remote = SimpleNamespace(item_factors=item, user_factors=user, recalculate_user=folded)
    there, here = (warm_model(one, *matrix[1:]) for one in (remote, als))
    np.testing.assert_array_equal(there.scores(matrix[2][:5]), here.scores(matrix[2][:5]))
    some = [matrix[1][:3], matrix[1][4:6]]
    np.testing.assert_allclose(there.scores_of(some), here.scores_of(some), rtol=1e-5)


@pytest.mark.parametrize(
    ("host", "columns"),
    [
        (lambda: implicit.cpu.bpr.BayesianPersonalizedRanking(factors=8, iterations=3, random_state=0), 9),
        (lambda: implicit.cpu.lmf.LogisticMatrixFactorization(factors=8, iterations=3, random_state=0), 10),
    ],
)
def test_biases_among_the_factors_stay_behind(host, columns, matrix, shop, encoder):
    model = host()
    model.fit(matrix[0], show_progress=False)
    warm = warm_model(model, *matrix[1:])
    assert warm.item_factors.shape[1] == columns
    factors = warm.to_factors()
    assert factors.item.shape == (len(matrix[1]), 8)
    np.testing.assert_array_equal(factors.item[:, :5], model.item_factors[:, :5])
    made = Recommender(encoder, config=SMALL, rng=0)
    made.fit_meta(shop.interactions, shop.items, factors=factors)
    assert made.info()["channels"]["host"] == 8


def test_the_arrays_of_lightfm_give_its_scores(matrix):
    user_items, items, users = matrix
    rng = np.random.default_rng(0)
    kinds = sp.csr_matrix(np.hstack([np.eye(len(items)), rng.integers(0, 2, (len(items), 5))]).astype(np.float32))
    model = LightFM(no_components=8, loss="warp", random_state=0)
    model.fit(user_items.astype(np.int32), item_features=kinds, epochs=3)
    item_biases, item_factors = model.get_item_representations(kinds)
    user_biases, user_factors = model.get_user_representations()
    warm = FactorModel(items, item_factors, users, user_factors, item_biases, user_biases)
    rows = np.repeat(np.arange(20), len(items)).astype(np.int32)
    columns = np.tile(np.arange(len(items)), 20).astype(np.int32)
    expected = model.predict(rows, columns, item_features=kinds).reshape(20, -1)
    np.testing.assert_allclose(warm.scores(users[:20]), expected, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_scores_are_inner_products_and_biases(n_users, n_items, rank, biased, seed):
    rng = np.random.default_rng(seed)
    user, item = rng.normal(size=(n_users, rank)), rng.normal(size=(n_items, rank))
    b_u, b_i = (rng.normal(size=n_users), rng.normal(size=n_items)) if biased else (None, None)
    users, items = [f"u{i}" for i in rng.permutation(n_users)], rng.permutation(n_items)
    model = FactorModel(items, item, users, user, b_i, b_u, offset=3.5)
    for row, name in enumerate(users):
        for column in range(n_items):
            expected = user[row] @ item[column] + 3.5 + (b_u[row] + b_i[column] if biased else 0)
            assert model.scores([name])[0, column] == pytest.approx(expected, abs=1e-4)
    item[:] = 0  # the caller's array is not the model's
    assert model.item_factors.any()


@pytest.mark.parametrize("kind", ["npz", "parquet", "safetensors", "folder"])
@pytest.mark.parametrize("strings", [False, True])
def test_factors_out_of_files(kind, strings, tmp_path):
    ids = np.array(["b", "a", "c"]) if strings else np.array([7, 3, 5])
    factors, biases = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, 2, 3], np.float32)
    path = tmp_path / f"items.{kind}"
    if kind == "npz":
        np.savez(path, ids=ids, factors=factors, biases=biases)
    elif kind == "parquet":
        pl.DataFrame({"id": ids, "factors": factors.tolist(), "bias": biases}).write_parquet(path)
    elif kind == "folder":  # as Spark writes the factors of its ALS
        path.mkdir()
        (path / "_SUCCESS").touch()
        for part, rows in enumerate(([0], [1, 2])):
            frame = pl.DataFrame({"id": ids[rows], "features": factors[rows].tolist(), "bias": biases[rows]})
            frame.write_parquet(path / f"part-0000{part}.snappy.parquet")
    elif strings:
        pytest.skip("safetensors holds numbers only")
    else:
        save_file({"ids": ids, "factors": factors, "biases": biases}, path)
    users = tmp_path / "users.npz"
    np.savez(users, ids=np.array([1]), factors=np.ones((1, 2), np.float32))
    model = FactorModel.read(path, users)
    assert list(model.item_ids) == ids.tolist()
    np.testing.assert_allclose(model.scores([1]), [[2, 7, 12]])


def test_what_surprise_and_torchrec_hold_is_handed_over_as_it_is():
    """Surprise: `qi`, `pu`, `bi`, `bu` and the mean rating, float64; TorchRec: tables of embeddings, as tensors."""
    rng = np.random.default_rng(0)
    qi, pu, bi, bu, mean = rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=4), rng.normal(size=2), 3.5
    model = FactorModel(range(4), qi, range(2), pu, bi, bu, offset=mean)
    np.testing.assert_allclose(model.scores([1, 0]), mean + bu[[1, 0], None] + bi + pu[[1, 0]] @ qi.T, atol=1e-5)
    tables = [torch.nn.EmbeddingBag(size, 3).weight.detach() for size in (4, 2)]
    model = FactorModel(np.arange(4), tables[0], np.arange(2), tables[1])
    np.testing.assert_allclose(model.scores([0, 1]), (tables[1] @ tables[0].T).numpy(), atol=1e-5)


def test_bad_factors_are_told(tmp_path):
    good, broken = np.ones((2, 3), np.float32), tmp_path / "broken.npz"
    for suffix in (".npz", ".safetensors"):
        broken.with_suffix(suffix).write_bytes(b"PK\x03\x04 and nothing more")
    for bad, message in (
        (lambda: FactorModel(["a", "a"], good), "stand twice"),
        (lambda: FactorModel(["a", None], good), "mixes NoneType, str"),
        (lambda: FactorModel([1.0, float("nan")], good), "missing"),
        (lambda: FactorModel([1.0, 2.5], good), "strings or integers"),
        (lambda: FactorModel(["a", "b"], good).to_factors(among={"c"}), "no factors to take"),
        (lambda: FactorModel(["a", "b"], good, ["u"], good[:1]).to_factors(), "no factors to take"),
        (lambda: FactorModel(["a"], good), r"item_factors has shape \(2, 3\)"),
        (lambda: FactorModel(["a", "b"], good * np.nan), "not finite"),
        (lambda: FactorModel(["a", "b"], good, ["u"]), "without user_factors"),
        (lambda: FactorModel(["a", "b"], good, ["u"], np.ones((1, 2))), "user_factors has shape"),
        (lambda: FactorModel.read(tmp_path / "none.npz"), "cannot be read"),
        (lambda: FactorModel.read(tmp_path / "x.csv"), "is no .npz"),
        (lambda: FactorModel.read(broken), "cannot be read"),
        (lambda: FactorModel.read(broken.with_suffix(".safetensors")), "cannot be read"),
        (lambda: NeighbourModel(["a", "a"], sp.eye(2), ["u"], sp.csr_matrix((1, 2))), "stand twice"),
        (lambda: warm_model(AlternatingLeastSquares(), ["a"], ["u"]), "fit it first"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            bad()
    np.savez(tmp_path / "bare.npz", factors=good)
    with pytest.raises(InvalidDataError, match="ids"):
        FactorModel.read(tmp_path / "bare.npz")
    with pytest.raises(UnknownItemError, match="nobody"):
        FactorModel(["a", "b"], good, ["u"], np.ones((1, 3))).scores(["nobody"])


def test_a_hosts_factors_are_the_collaborative_channel(matrix, als, shop, encoder):
    """Shuffled, without the first five items, and with one that mecold's catalogue lacks."""
    _, items, _ = matrix
    wider = [*items[5:][::-1], "gone"]
    some = FactorModel(wider, np.concatenate([als.item_factors[5:][::-1], als.item_factors[:1]]))
    made = Recommender(encoder, config=SMALL, rng=0)
    with pytest.raises(UnknownItemError, match="gone"):
        made.fit_meta(shop.interactions, shop.items, factors=some.to_factors())
    report = made.fit_meta(shop.interactions, shop.items, factors=some.to_factors(among=set(items)))
    assert made.info()["channels"]["host"] == als.item_factors.shape[1]
    assert any("without unseen_users" in note for note in report.notes)
    shelf = made._state[1]
    host, text = (shelf.space[name].item for name in ("host", "text"))
    rows = [shelf.catalog.row(item) for item in items]
    assert not host[rows[:5]].any() and host[rows[5:]].any(1).all()
    assert text[rows[:5]].any(1).all()
    assert len(made.recommend(made.adapt_user(items[:2]), k=10)) == 10
    for item in items[:5]:  # found by its text: what is alike ranks it above most of the catalogue
        alike = [one.item for one in made.similar_items(item, 3)]
        ranked = [one.item for one in made.recommend(made.adapt_user(alike), k=len(items))]
        assert ranked.index(item) < len(items) / 2


# ---- the router


def test_the_router_asks_who_knows_the_user(matrix, als, recommender):
    user_items, items, users = matrix
    warm = FactorModel(items, als.item_factors, users, als.user_factors)
    router = ColdStartRouter(warm, recommender, handover=((3, 0.0), (6, 1.0)))
    sizes = np.diff(user_items.indptr)
    few, some, many = (users[int(np.flatnonzero(sizes == n)[0])] for n in (3, 5, 8))
    rows = [
        (u, items[i], float(p)) for u in (few, some, many) for p, i in enumerate(user_items[users.index(u)].indices)
    ]
    rows += [("new", item, float(p)) for p, item in enumerate(items[:9])]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row")
    found = router.recommend(frame, 7, users=["nobody"], exclude=items[20:22])
    assert [found[u].share for u in (few, many, "new", "nobody")] == [0.0, 1.0, 0.0, 0.0]
    assert 0 < found[some].share < 1
    assert "unknown to the host" in found["new"].reason
    assert "both" in found[some].reason and "5 items" in found[some].reason
    for user, one in found.items():
        seen = set(frame.filter(pl.col("user_id") == user)["item_id"])
        ids = [r.item for r in one.items]
        assert len(set(ids)) == 7 and not seen & set(ids) and not set(items[20:22]) & set(ids)
    own = users.index(many)
    ids, scores = als.recommend(own, user_items[own], N=7, filter_items=[20, 21])
    assert [r.item for r in found[many].items] == [items[i] for i in ids]
    np.testing.assert_allclose([r.score for r in found[many].items], scores, rtol=1e-5)
    alone = recommender.recommend(recommender.adapt_user(items[:9]), 7, exclude=items[20:22])
    assert [r.item for r in found["new"].items] == [r.item for r in alone]


def test_the_router_leaves_out_and_allows_by_user_and_hides_what_mecold_hides(matrix, als, recommender, shop):
    _, items, users = matrix
    router = ColdStartRouter(warm_model(als, items, users), recommender, handover=((3, 0.0), (6, 1.0)))
    people, rng = [users[row] for row in range(12)], np.random.default_rng(0)
    log = shop.interactions.filter(pl.col("user_id").is_in(people))
    pairs = [(user, items[at]) for user in [*people[1:], "nobody"] for at in rng.integers(300, size=40)]
    table = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    own = {user: {item for one, item in pairs if one == user} for user in [*people, "nobody"]}
    whole = router.recommend(log, 300, users=["nobody"])
    shares = {one.share for one in whole.values()}
    assert {0.0, 1.0} < shares
    some = items[::3]
    hidden = [whole[people[0]].items[0].item, whole["nobody"].items[0].item]

    def check(keep, k=10, **rules):
        found = router.recommend(log, k, users=["nobody"], **rules)
        assert found.keys() == whole.keys()
        for user, one in found.items():
            expected = [each.item for each in whole[user].items if keep(user, each.item)]
            assert len(one.items) == min(k, len(expected))
            assert {each.item for each in one.items} <= set(expected)
            if one.share in (0, 1):  # a fused list depends on how far down both are read
                assert [each.item for each in one.items] == expected[:k]

    check(lambda user, item: item not in own[user], exclude=table)
    check(lambda user, item: item in own[user], among=table)
    check(lambda user, item: item in some and item not in own[user], exclude=table, among=some)
    check(lambda user, item: item in own[user] and item not in some, exclude=some, among=table)
    recommender.hide_items(hidden)
    try:
        check(lambda user, item: item not in hidden)
        check(lambda user, item: item in own[user] and item not in hidden, among=table)
    finally:
        recommender.show_items(hidden)
    with pytest.raises(UnknownItemError, match="'nope'"):
        router.recommend(log, among=["nope"])
    with pytest.raises(InvalidDataError, match="user ids of `exclude` are Int64"):
        router.recommend(log, exclude=pl.DataFrame({"user_id": [1], "item_id": ["p1"]}))


def test_an_allow_list_may_name_what_only_one_of_both_models_has(matrix, als, recommender, shop):
    _, items, users = matrix
    host = FactorModel([*items[:-1], "elsewhere"], als.item_factors, users, als.user_factors)
    router = ColdStartRouter(host, recommender, handover=((0, 1.0),))
    log = shop.interactions.filter(pl.col("user_id") == users[0])
    found = router.recommend(log, 5, among=["elsewhere", items[-1]])[users[0]]
    assert {one.item for one in found.items} == {"elsewhere", items[-1]} - set(log["item_id"])


def test_a_host_that_folds_in_takes_unknown_users(matrix, als, recommender):
    user_items, items, users = matrix
    router = ColdStartRouter(warm_model(als, items, users), recommender, handover=((2, 0.0), (3, 1.0)))
    row = int(np.argmax(np.diff(user_items.indptr)))
    mine = [items[i] for i in user_items[row].indices]
    frame = pl.DataFrame({"user_id": ["new"] * len(mine), "item_id": mine, "position": np.arange(len(mine)) * 1.0})
    found = router.recommend(frame, 5, users=["nobody"])
    ids, _ = als.recommend(0, user_items[row], N=5, recalculate_user=True)
    assert [r.item for r in found["new"].items] == [items[i] for i in ids]
    assert found["nobody"].share == 0.0


def test_what_the_host_cannot_use_does_not_count_and_short_lists_are_filled(matrix, recommender):
    user_items, items, users = matrix
    half = user_items[:, :150].tocsr()
    model = CosineRecommender(K=5)
    model.fit(half, show_progress=False)
    router = ColdStartRouter(warm_model(model, items[:150], users, half), recommender, handover=((3, 0.0), (4, 1.0)))
    strange = pl.DataFrame({"user_id": ["new"] * 6, "item_id": items[200:206], "position": np.arange(6.0)})
    found = router.recommend(strange, 5)["new"]
    assert found.share == 0.0 and [r.item for r in found.items] == [
        r.item for r in recommender.recommend(recommender.adapt_user(items[200:206]), 5)
    ]
    known = pl.DataFrame({"user_id": ["new"] * 4, "item_id": items[:4], "position": np.arange(4.0)})
    found = router.recommend(known, 60)["new"]
    ids, _ = model.recommend(0, sp.csr_matrix((np.ones(4), ([0] * 4, range(4))), (1, 150)), N=60)
    own = [items[i] for i in ids if i > 3]  # implicit fills its list with what the user has
    assert found.share == 1.0 and 0 < len(own) < 60
    assert [r.item for r in found.items[: len(own)]] == own
    assert len({r.item for r in found.items}) == 60 and not set(items[:4]) & {r.item for r in found.items}


def test_ids_of_another_kind_are_refused(als, recommender, matrix):
    with pytest.raises(InvalidDataError, match="item ids are integers"):
        ColdStartRouter(warm_model(als, range(300), matrix[2]), recommender)
    router = ColdStartRouter(warm_model(als, matrix[1], range(len(matrix[2]))), recommender)
    with pytest.raises(InvalidDataError, match="user ids are integers, those of the histories strings"):
        router.recommend(pl.DataFrame({"user_id": ["u0"], "item_id": ["p1"]}))
    router = ColdStartRouter(warm_model(als, *matrix[1:]), recommender)
    with pytest.raises(InvalidDataError, match="one text"):
        router.recommend(pl.DataFrame({"user_id": ["u0"], "item_id": ["p1"]}), users="somebody")
    with pytest.raises(InvalidDataError, match="those in `exclude` are integers"):
        router.recommend(pl.DataFrame({"user_id": ["u0"], "item_id": ["p1"]}), exclude=[1, 2])


def test_the_handover_is_learned_where_the_host_knows_better(matrix, recommender, shop):
    _, items, users = matrix
    log = shop.interactions.sort("user_id", "timestamp")
    place = pl.int_range(pl.len()).over("user_id")
    late = log.filter(place >= 4)
    oracle = np.zeros((len(users), len(items)), np.float32)
    row, column = {u: i for i, u in enumerate(users)}, {i: c for c, i in enumerate(items)}
    for user, item in late.select("user_id", "item_id").iter_rows():
        oracle[row[user], column[item]] = 1.0
    knowing = FactorModel(items, np.eye(len(items), dtype=np.float32), users, oracle)
    router = ColdStartRouter(knowing, recommender)
    gains = router.learn_handover(log.filter(place < 4), late)
    assert (
        router.share(4) == 1.0 > router.share(1) > router.share(0) == 0.0
        and gains[min(gains, key=lambda n: abs(n - 4))] > 0.9
    )
    blind = FactorModel(items, np.eye(len(items), dtype=np.float32), users, -oracle)
    router = ColdStartRouter(blind, recommender)
    router.learn_handover(log.filter(place < 4), late)
    assert router.share(4) == 0.0
    with pytest.raises(InvalidDataError, match="numbers="):
        router.learn_handover(log, late, numbers=())
    with pytest.raises(InvalidDataError, match="No user"):
        router.learn_handover(log.filter(pl.col("user_id") == users[0]), late.filter(pl.col("user_id") == users[1]))


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=4))
def test_rising_shares_are_the_best_of_all_rising_ones(sums):
    import itertools

    sums = np.array(sums, float)
    rising = [c for c in itertools.product(range(3), repeat=len(sums)) if list(c) == sorted(c)]
    best = max(sum(sums[i, j] for i, j in enumerate(c)) for c in rising)
    chosen = _rising(sums)
    assert chosen == sorted(chosen)
    assert sum(sums[i, j] for i, j in enumerate(chosen)) == best


def test_the_guides_warm_model_serves_a_router(als, matrix, recommender, shop):
    guide = (Path(__file__).parents[1] / "docs" / "adapters" / "own.md").read_text("utf-8")
    made: dict = {}
    exec(guide.split("```python\n")[1].split("```")[0], made)
    _, items, users = matrix
    host = warm_model(als, items, users)
    warm = made["WarmFunction"](lambda user: host.scores([user])[0], users, items)
    assert isinstance(warm, WarmModel) and not isinstance(warm, FoldIn)
    routers = [ColdStartRouter(one, recommender, handover=((0, 0.0), (5, 1.0))) for one in (warm, host)]
    log = shop.interactions.filter(pl.col("user_id").is_in(users[:6]))
    found = [router.recommend(log, k=5, users=["nobody"]) for router in routers]
    ids = [{user: [item.item for item in one.items] for user, one in lists.items()} for lists in found]
    assert ids[0] == ids[1]
    assert found[0]["nobody"].share == 0 and any(one.share == 1 for one in found[0].values())


@pytest.mark.parametrize("handover", [(), ((5, 0.5), (3, 1.0)), ((1, 1.0), (5, 0.0)), ((1, 0.0), (5, 1.5))])
def test_a_handover_that_falls_is_refused(handover, als, matrix, recommender):
    with pytest.raises(InvalidDataError, match="handover"):
        ColdStartRouter(warm_model(als, *matrix[1:]), recommender, handover=handover)


# ---- into implicit


@pytest.fixture(scope="module")
def ours(matrix, shop, encoder) -> MecoldRecommender:
    items = shop.items.with_columns(pl.int_range(pl.len()).alias("item_id"))
    model = MecoldRecommender(items, encoder=encoder, config=SMALL)
    model.fit(matrix[0], show_progress=False)
    return model


def test_implicits_own_contract(tmp_path):
    """The tests that implicit publishes for its models, unchanged, on our model at its defaults."""
    url, digest = SDIST
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data = answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        pytest.skip(f"implicit's tests cannot be fetched: {error}")
    assert hashlib.sha256(data).hexdigest() == digest
    (tmp_path / "sdist.tar.gz").write_bytes(data)
    with tarfile.open(tmp_path / "sdist.tar.gz") as packed:
        (tmp_path / "recommender_base_test.py").write_bytes(
            packed.extractfile("implicit-0.7.3/tests/recommender_base_test.py").read()
        )
    (tmp_path / "test_contract.py").write_text(
        "import unittest\n"
        "from recommender_base_test import RecommenderBaseTestMixin\n"
        "from mecold_adapters.implicit import MecoldRecommender\n"
        "class TestMecold(unittest.TestCase, RecommenderBaseTestMixin):\n"
        "    def _get_model(self):\n"
        "        return MecoldRecommender()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "test_contract.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "22 passed" in done.stdout, done.stdout[-3000:]


def test_shapes_and_dtypes_are_implicits(ours, als, matrix):
    user_items, items, _ = matrix
    for model in (als, ours):
        for one in (3, np.int64(3)):
            ids, scores = model.recommend(one, user_items[3], N=4)
            assert ids.shape == scores.shape == (4,) and ids.dtype == np.int32 and scores.dtype == np.float32
        ids, scores = model.recommend(np.arange(6), user_items[:6], N=4, filter_items=[1, 2])
        assert ids.shape == scores.shape == (6, 4) and not np.isin(ids, [1, 2]).any()
        ids, scores = model.recommend(np.arange(6), user_items[:6], N=50, items=[4, 5, 6])
        assert ids.shape == (6, 3) and (np.sort(ids, 1) == [4, 5, 6]).all()
        ids, scores = model.recommend(0, user_items[0], N=10_000)
        assert len(ids) == 10_000 and ids.dtype == np.int32
        best = ids[scores > LEFT_OUT]
        assert set(best) == set(range(len(items))) - set(user_items[0].indices)
    top = ours.recommend(3, user_items[3], N=3)[0]
    disliked = user_items[3].copy().tolil()
    disliked[0, top[0]] = -1.0
    for model in (als, ours):
        assert top[0] not in model.recommend(3, disliked.tocsr(), N=50)[0]
    empty = sp.csr_matrix((2, len(items)), dtype=np.float32)
    ids, scores = ours.recommend([0, 1], empty, N=5)
    assert (ids[0] == ids[1]).all() and (scores > LEFT_OUT).all()


def test_a_matrix_that_is_handed_in_stays_as_it_was(ours, matrix):
    user_items = matrix[0].copy()
    before = [getattr(user_items, name).copy() for name in ("data", "indices", "indptr")]
    made = MecoldRecommender(ours.items, encoder=ours.encoder, config=SMALL)
    made.fit(user_items, show_progress=False)
    made.recommend(np.arange(5), user_items[:5], N=5, filter_already_liked_items=False)
    made.recommend(0, user_items[0], N=5, items=np.arange(20))
    for name, part in zip(("data", "indices", "indptr"), before, strict=True):
        np.testing.assert_array_equal(getattr(user_items, name), part)


def test_implicits_evaluator_ranks_ours_above_chance(ours, matrix):
    user_items = matrix[0]
    rng = np.random.default_rng(0)
    held = user_items.copy()
    held.data = (rng.random(len(held.data)) < 0.3).astype(np.float32)
    held.eliminate_zeros()
    kept = user_items - held
    kept.eliminate_zeros()
    found = ranking_metrics_at_k(ours, kept.tocsr(), held.tocsr(), K=10, show_progress=False)
    assert found["ndcg"] > 0.1


def test_what_mecold_cannot_do_in_implicit_is_said(ours, matrix, tmp_path):
    user_items = matrix[0]
    with pytest.raises(NotImplementedError):
        ours.similar_users(0)
    with pytest.raises(NotImplementedError):
        ours.similar_items(0, recalculate_item=True)
    with pytest.raises(ValueError, match="1 row for every user"):
        ours.recommend([0, 1], user_items[:1])
    with pytest.raises(ValueError, match="both items and filter_items"):
        ours.recommend(0, user_items[0], items=[1], filter_items=[2])
    with pytest.raises(NotFittedError):
        MecoldRecommender().recommend(0, user_items[0])
    with pytest.raises(InvalidDataError, match="no columns of the matrix"):
        MecoldRecommender(pl.DataFrame({"item_id": [0, 999], "title": ["a", "b"]})).fit(user_items[:, :5])
    with pytest.raises(InvalidDataError, match="no integers"):
        MecoldRecommender(pl.DataFrame({"item_id": ["a"], "title": ["a"]})).fit(user_items[:, :5])
    ours.save(tmp_path / "model")
    again = MecoldRecommender.load(tmp_path / "model")
    np.testing.assert_array_equal(ours.recommend(0, user_items[0])[0], again.recommend(0, user_items[0])[0])


# ---- scikit-learn


def test_a_grid_search_over_users(shop, encoder):
    log = shop.interactions
    assert clone(MecoldEstimator(shop.items, shots=3)).get_params()["shots"] == 3
    blind = MetaConfig(
        factors=SMALL.factors.__class__(symmetric_rank=0, directed_rank=0, neighbours=0, trend_bins=0),
        training=SMALL.training, text_rank=1,
    )  # fmt: skip
    search = GridSearchCV(
        MecoldEstimator(shop.items, encoder=encoder, shots=3),
        {"config": [blind, SMALL]},
        cv=GroupKFold(2),
        error_score="raise",
    )
    search.fit(log, groups=log["user_id"].to_numpy())
    assert search.best_params_["config"] is SMALL or search.best_params_["config"] == SMALL
    assert search.best_estimator_.set_params(k=4).predict(log.head(50))["rank"].max() == 4
    zero = search.best_estimator_.set_params(shots=0).score(log)
    assert 0 < zero < search.best_estimator_.set_params(shots=3, k=10).score(log)
    with pytest.raises(InvalidDataError, match="timestamp"):
        search.best_estimator_.score(log.drop("timestamp"))
    rated = log.with_columns((pl.int_range(pl.len()) % 5 + 1.0).alias("rating"))
    liking = clone(search.best_estimator_).set_params(config=replace(SMALL, liked_from=3.0)).fit(rated)
    everything = liking.set_params(config=None).score(rated)
    assert liking.set_params(config=replace(SMALL, liked_from=3.0)).score(rated) != everything
    with pytest.raises(InvalidDataError, match="rating"):
        liking.score(log)
    with pytest.raises(InvalidDataError, match="shots=500"):
        search.best_estimator_.set_params(shots=500).score(log)
    with pytest.raises(InvalidDataError, match="needs the items"):
        MecoldEstimator().fit(log)


@pytest.mark.parametrize(
    "check",
    [
        "no_attributes_set_in_init", "parameters_default_constructible", "get_params_invariance", "set_params",
        "estimator_cloneable", "estimator_repr", "estimator_tags_renamed", "valid_tag_types", "mixin_order",
    ],
)  # fmt: skip
def test_scikit_learns_own_checks_that_need_no_matrix(check):
    getattr(estimator_checks, f"check_{check}")("MecoldEstimator", MecoldEstimator())


@pytest.mark.parametrize("ids", ["strings", "shuffled integers"])
@pytest.mark.parametrize("library", [pl.DataFrame, pd.DataFrame])
def test_an_estimator_takes_any_frame_and_is_pickled_fitted(ids, library, shop, encoder):
    log, items = shop.interactions, shop.items
    if ids != "strings":
        number = dict(zip(items["item_id"], np.random.default_rng(0).permutation(10**6).tolist(), strict=False))
        log, items = (one.with_columns(pl.col("item_id").replace_strict(number)) for one in (log, items))
    first, last = items["item_id"][0], items["item_id"][-1]
    log = log.filter(pl.col("item_id") != first)  # nobody has it
    frames = [one if library is pl.DataFrame else one.to_pandas() for one in (log, items)]
    before = [one.copy() if library is pd.DataFrame else one.clone() for one in frames]
    made = MecoldEstimator(frames[1], encoder=encoder, config=SMALL, k=10_000).fit(frames[0])
    asked = {"user_id": ["a", "b", "b"], "item_id": [last, last, items["item_id"][5]], "position": [1.0, 1.0, 2.0]}
    found = made.predict(library(asked))
    assert found.group_by("user_id", maintain_order=True).len().rows() == [("a", len(items) - 1), ("b", len(items) - 2)]
    assert first in found["item_id"] and set(found["item_id"]) <= set(items["item_id"])
    assert found.equals(pickle.loads(pickle.dumps(made)).predict(library(asked)))
    assert found.equals(copy.deepcopy(made).predict(library(asked)))
    assert all(one.equals(other) for one, other in zip(frames, before, strict=True)), "the caller's frames were changed"
    assert pickle.loads(pickle.dumps(MecoldEstimator(k=3))).k == 3


# ---- the list of adapters


class _Point:
    def __init__(self, name, loaded):
        self.name, self.value, self._loaded = name, f"{name}:X", loaded

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_the_list_says_what_is_missing_and_what_is_broken(monkeypatch):
    ghost = plugins.Adapter("ghost", "ghost", "ghost_of_a_module", "ghost 1", ">=1", {"Boo": "says boo"})
    points = [_Point("ghost", ghost), _Point("bad", RuntimeError("went wrong")), _Point("odd", 3)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)  # not importlib's own: others read that
    found = plugins.adapters()
    assert [one.name for one in found] == ["bad", "ghost", "odd"]
    assert found[1].version is None and "pip install 'ghost>=1'" in str(found[1].missing())
    assert replace(ghost, module="ghost_of_a_module.part").version is None
    old = replace(ghost, name="old", host="implicit", module="implicit", supported=">=99")
    vague = _Point("vague", replace(old, supported="about 2"))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [*points, _Point("old", old), vague])
    assert isinstance(plugins.adapters()[-1], plugins.Broken)
    with pytest.warns(UserWarning, match="not a version that the adapter supports"):
        old.warn_unless_supported()
    assert [old.fits, replace(old, supported=">=0.7").fits, ghost.fits] == [False, True, None]
    assert "lacks what the adapter needs" in str(old.missing())
    monkeypatch.setattr(out, "width", 200)
    shown = CliRunner().invoke(app, ["adapters"]).output
    assert "went wrong" in shown and "missing" in shown and "pip install 'ghost>=1'" in shown
    assert "not a supported version" in shown


def test_the_built_in_adapters_are_registered():
    rows = json.loads(CliRunner().invoke(app, ["adapters", "--json"]).output)
    by_name = {row["name"]: row for row in rows}
    assert {"factors", "implicit", "sklearn"} <= set(by_name)
    assert by_name["implicit"]["version"] == metadata.version("implicit") and by_name["implicit"]["fits"]


def test_listing_imports_no_host():
    code = (
        "import sys, mecold.plugins as p; p.adapters(); print([m for m in ('implicit', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["implicit", "sklearn", "lenskit", "rectools", "cornac", "spark"])
def test_a_missing_host_says_how_to_install_it(name):
    about = getattr(mecold_adapters.about, name.upper())
    code = f"import sys; sys.modules[{about.module!r}] = None; import mecold_adapters.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"pip install '{about.host}" in done.stderr and done.returncode == 1
