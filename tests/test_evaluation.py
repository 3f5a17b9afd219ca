"""The protocol, the baselines and the metrics, against plain loops and against ir-measures."""

import importlib
import math
from pathlib import Path

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mecold
from mecold.errors import DataWarning, InvalidDataError
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.measures import ItemFacts, beyond, per_user, slices, without_support
from mecold.evaluation.protocol import Tasks, split
from mecold.evaluation.ranking import rank, top
from mecold.evaluation.report.describe import histogram
from mecold.evaluation.results import _reached, code_fingerprint
from mecold.evaluation.statistics import holm, interval, replicates, sign_flip
from mecold.evaluation.systems.base import Ranker, Training, support_matrix
from mecold.evaluation.systems.factors import ALS, FeatureALS
from mecold.evaluation.systems.item_to_item import EASE, Directed, ItemKNN, Popularity, RecentPopularity, RP3Beta
from mecold.evaluation.systems.text import Content, TextLogistic, TextRidge
from mecold.evaluation.systems.user_to_user import UserKNN
from tests import reference


@pytest.fixture(scope="module", params=["timestamp", "position", None])
def world(request, shop, encoder):
    """A data set ordered by time, by position, or not at all; and its histories by plain loops."""
    log = shop.interactions
    if request.param == "position":
        log = log.with_columns(pl.int_range(pl.len()).over("user_id").alias("position")).drop("timestamp")
        log = log.sample(fraction=1.0, shuffle=True, seed=3)
    if request.param is None:
        log = log.drop("timestamp")
    dataset = Dataset.read(log, shop.items, name="shop", encoder=encoder)
    return dataset, reference.histories_of(log.to_dicts(), request.param)


def by_user(dataset, log):
    ids = dataset.catalog.ids
    return {user: ids.gather(h).to_list() for user, h in zip(log.users, log.split(), strict=True)}


def items_only(histories):
    return {user: [item for item, _ in history] for user, history in histories.items()}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_user_split_is_that_of_plain_loops(world, seed):
    dataset, histories = world
    expected = reference.user_split(histories, seed)
    found = split(dataset, "user", seed)
    for name in ("train", "valid", "test"):
        assert by_user(dataset, getattr(found, name)) == items_only(expected[name])
    for k in (0, 3, 10):
        tasks = found.tasks("test", k)
        ids = dataset.catalog.ids
        for user, support, query in zip(tasks.users, tasks.supports, tasks.queries, strict=True):
            history = items_only(histories)[user]
            assert ids.gather(support).to_list() == history[:k]
            assert ids.gather(query).to_list() == history[k : k + 10]


def test_the_time_split_is_that_of_plain_loops(world):
    dataset, histories = world
    if dataset.log.order != "timestamp":
        with pytest.raises(InvalidDataError, match="needs timestamps; these interactions are ordered by"):
            split(dataset, "time", 0)
        return
    expected, found = reference.time_split(histories), split(dataset, "time", 0)
    assert by_user(dataset, found.train) == items_only(expected["train"])
    assert by_user(dataset, found.test) == items_only(expected["test"])
    assert set(found.inner.train.users) | set(found.inner.test.users) <= set(found.train.users)


def test_the_item_split_is_that_of_plain_loops(world):
    dataset, histories = world
    train, test, cold = reference.item_split(histories, dataset.catalog.ids.to_list(), 0)
    found = split(dataset, "item", 0)
    assert by_user(dataset, found.train) == items_only(train)
    assert set(dataset.catalog.ids.gather(found.cold)) == cold
    tasks = found.tasks("test", 10)
    ids = dataset.catalog.ids
    given_out = {
        user: (ids.gather(s).to_list(), ids.gather(q).to_list())
        for user, s, q in zip(tasks.users, tasks.supports, tasks.queries, strict=True)
    }
    assert given_out == {user: (warm[:10], new) for user, (warm, new) in test.items()}


# ---- ratings


@pytest.fixture(scope="module")
def rated_log(shop):
    rng = np.random.default_rng(5)
    return shop.interactions.with_columns(
        rating=pl.Series(rng.integers(1, 6, shop.interactions.height)).cast(pl.Float64)
    )


@pytest.mark.parametrize("protocol", ["user", "time", "item"])
def test_only_what_was_liked_is_asked_for_as_plain_loops_say(rated_log, shop, encoder, protocol):
    data = Dataset.read(rated_log, shop.items, encoder=encoder, liked_from=4.0)
    rating = {(user, item): value for user, item, value in rated_log["user_id", "item_id", "rating"].iter_rows()}
    one = split(data, protocol, 0)
    for k in (0, 3):
        tasks = one.tasks("test", k)
        assert len(tasks)
        for user, support, query, labels in zip(tasks.users, tasks.supports, tasks.queries, tasks.labels, strict=True):
            history = data.catalog.ids.gather(one.test.split()[one.test.users.to_list().index(user)]).to_list()
            expected = [item for item in history[k:] if rating[user, item] >= 4][:10]
            support, query = (data.catalog.ids.gather(rows).to_list() for rows in (support, query))
            if protocol != "item":
                assert (support, query) == (history[:k], expected)
            assert all(rating[user, item] >= 4 for item in query)
            assert labels.tolist() == [1.0 if rating[user, item] >= 4 else -1.0 for item in support]


def test_baselines_learn_and_read_likes_alone_and_mecold_reads_both(rated_log, shop, encoder):
    data = Dataset.read(rated_log, shop.items, encoder=encoder, liked_from=4.0)
    training = Training(split(data, "user", 0).train, data)
    liked = rated_log.filter(pl.col("rating") >= 4, pl.col("user_id").is_in(training.log.users.implode()))
    counts = dict(liked.group_by("item_id").len().iter_rows())
    assert training.counts.tolist() == [counts.get(item, 0) for item in data.catalog.ids]
    heard = []

    class Listening:
        reads = ()

        def adapt(self, supports, **told):
            heard.append((supports, told))

        def scores(self, state):
            return np.zeros((1, 4))

    supports, labels = [np.array([3, 1, 2])], [np.array([1.0, -1.0, 0.5])]
    tasks = Tasks(pl.Series(["u"]), supports, [np.array([0])], np.array([np.nan]), labels)
    Ranker.of(Listening()).adapt(tasks)
    Listening.reads = ("labels",)
    Ranker.of(Listening()).adapt(tasks)
    Listening.reads = ("label",)
    with pytest.raises(InvalidDataError, match=r"Listening.reads names 'label'; there is times, labels"):
        Ranker.of(Listening())
    assert [rows.tolist() for rows in heard[0][0]] == [[3, 2]] and heard[0][1] == {}
    assert heard[1][0] is supports and heard[1][1]["labels"] is labels


def test_ratings_that_are_not_read_are_told(rated_log, shop):
    with pytest.warns(DataWarning, match=r"Ratings from 1 to 5 .whole numbers. are not read.*--liked-from"):
        plain = Dataset.read(rated_log, shop.items)
    with pytest.raises(InvalidDataError, match="needs a `rating` column"):
        Dataset.read(shop.interactions, shop.items, liked_from=4.0)
    marked = Dataset.read(rated_log, shop.items, liked_from=4.0)
    assert len({plain.fingerprint, marked.fingerprint}) == 2


def test_too_few_users_are_an_error_that_says_how_many(shop, encoder):
    short = shop.interactions.group_by("user_id", maintain_order=True).head(5)
    dataset = Dataset.read(short, shop.items, encoder=encoder)
    with pytest.raises(InvalidDataError, match="leaves 0 test users"):
        split(dataset, "user", 0)


lists = st.lists(st.permutations(range(40)).map(lambda p: p[:20]), min_size=1, max_size=6)


@given(lists, st.data())
@settings(max_examples=60, deadline=None)
def test_metrics_are_those_of_plain_loops_and_of_ir_measures(ranked, data):
    queries = [
        data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=25, unique=True), label="query") for _ in ranked
    ]
    found = per_user(np.array(ranked, np.int32), [np.array(q) for q in queries])
    for user, (items, query) in enumerate(zip(ranked, queries, strict=True)):
        for name, value in reference.metrics(items, set(query)).items():
            assert found[name][user] == pytest.approx(value, abs=1e-6), name
    run = [
        ir_measures.ScoredDoc(str(u), str(item), -float(place))
        for u, items in enumerate(ranked)
        for place, item in enumerate(items)
    ]
    truth = [ir_measures.Qrel(str(u), str(item), 1) for u, query in enumerate(queries) for item in query]
    named = {ir_measures.nDCG @ 10: "ndcg@10", ir_measures.RR @ 10: "mrr@10", ir_measures.Success @ 10: "hit@10"}
    for row in ir_measures.iter_calc(named, truth, run):
        assert found[named[row.measure]][int(row.query_id)] == pytest.approx(row.value, abs=1e-6)
    for row in ir_measures.iter_calc([ir_measures.R @ 20, ir_measures.AP @ 10], truth, run):
        # theirs divides by all relevant items, ours by as many as fit
        size, (name, k) = (
            len(queries[int(row.query_id)]),
            (("recall@20", 20) if "R@20" in str(row.measure) else ("map@10", 10)),
        )
        assert found[name][int(row.query_id)] == pytest.approx(row.value * size / min(k, size), abs=1e-6)


def test_short_lists_and_unknown_metrics():
    found = per_user(np.array([[3, -1], [-1, -1]], np.int32), [np.array([3]), np.array([1])])
    assert found["ndcg@10"].tolist() == [1.0, 0.0]
    for name in ("ndcg", "ndcg@0", "auc@10"):
        with pytest.raises(InvalidDataError, match="There is no metric"):
            per_user(np.zeros((1, 1), np.int32), [np.array([0])], [name])


@pytest.fixture(scope="module")
def training(shop, encoder):
    dataset = Dataset.read(shop.interactions, shop.items, encoder=encoder)
    return Training(split(dataset, "user", 0).train, dataset)


@pytest.fixture(scope="module")
def supports(training):
    return [h[:k] for h, k in zip(training.log.split()[:6], (0, 1, 2, 3, 5, 9), strict=True)]


def matrix(supports, n, fade):
    dense = np.zeros((len(supports), n))
    for row, support in enumerate(supports):
        for age, item in enumerate(reversed(support.tolist())):
            dense[row, item] = 1.0 if fade is None else math.exp(-age / fade)
    return dense


@pytest.mark.parametrize("fade", [None, 2.0])
@pytest.mark.parametrize(
    ("system", "weights"),
    [
        (ItemKNN, lambda h, n: reference.itemknn(h, n, 10.0)),
        (RP3Beta, lambda h, n: reference.rp3beta(h, n, 0.6)),
        (EASE, lambda h, n: reference.ease(h, n, 500.0)),
        (Directed, lambda h, n: reference.directed(h, n, 500.0, 20, 2.0, 10)),
    ],
)
def test_linear_baselines_are_those_of_plain_loops(training, supports, system, weights, fade):
    fade = 2.0 if system is Directed else fade
    fitted = system(fade=fade).fit(training)
    n, histories = training.n_items, [h.tolist() for h in training.log.split()]
    counts = np.bincount(np.concatenate(histories), minlength=n)
    expected = matrix(supports, n, fade) @ weights(histories, n) + 1e-6 * counts / counts.max()
    np.testing.assert_allclose(fitted.scores(fitted.adapt(supports)), expected, atol=2e-6)


@pytest.mark.parametrize("fade", [None, 2.0])
def test_neighbouring_users_are_those_of_plain_loops(training, supports, fade):
    fitted = UserKNN(neighbours=20, fade=fade).fit(training)
    histories = [h.tolist() for h in training.log.split()]
    found = fitted.scores(fitted.adapt(supports)) - training.tie
    for row, support in enumerate(supports[1:], start=1):
        expected = reference.userknn(histories, support.tolist(), training.n_items, 20, fade)
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_popularity_counts_and_recent_popularity_forgets(training):
    users = training.log.owners
    expected = [len({u for u, i in zip(users, training.log.items, strict=True) if i == item}) for item in range(5)]
    assert Popularity().fit(training).scores(2)[1, :5].tolist() == expected
    fitted = RecentPopularity(half_life=10.0).fit(training)
    age = (training.log.times.max() - training.log.times) / 86_400
    by_hand = np.bincount(training.log.items, 0.5 ** (age / 10), training.n_items)
    np.testing.assert_allclose(fitted.scores(1)[0], by_hand / by_hand.max(), atol=2e-6)


def test_als_folds_in_as_implicit_does(training, supports):
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=64, regularization=0.1, alpha=1.0, iterations=15, random_state=0)
        model.fit(training.matrix, show_progress=False)
    fitted = ALS().fit(training)
    ids, _ = model.recommend(
        np.arange(3), training.matrix[:3], N=5, recalculate_user=True, filter_already_liked_items=True
    )
    mine = [training.log.split()[user] for user in range(3)]
    assert top(fitted.scores(fitted.adapt(mine)), mine, None, 5).tolist() == ids.tolist()


def test_feature_als_is_irspacks_and_places_an_untouched_item_by_its_text(training, supports):
    from irspack.recommenders.ials import IALSRecommender

    without = Training(training.log.where(training.log.items != 0), training.dataset)  # nobody has touched item 0
    fitted = FeatureALS(factors=8).fit(without)
    expected = IALSRecommender(
        without.matrix, n_components=8, alpha0=0.1, reg=0.003, random_seed=0, item_features=training.vectors,
        lambda_item_feature=1.0, n_threads=1,
    ).learn()  # fmt: skip
    state = support_matrix(supports, training.n_items)
    theirs = expected.get_score_from_user_embedding(expected.compute_user_embedding(state))
    np.testing.assert_allclose(fitted.scores(fitted.adapt(supports)) - training.tie, theirs, atol=1e-4)
    assert np.abs(expected.get_item_embedding()[0]).sum() > 0


def test_a_baseline_s_results_depend_on_what_it_imports_and_not_on_what_mecold_learns_by():
    root = Path(mecold.__file__).parent
    of_baselines, of_ours = _reached(root, ["evaluation.systems.text"]), _reached(root, ["evaluation.systems.ours"])
    assert {"heads.inner", "data.histories", "evaluation.systems.base", "data.interactions"} <= of_baselines
    assert not {"space.space", "heads.preference", "meta.train", "recommender", "evaluation.report.page"} & of_baselines
    assert {
        "space.space",
        "heads.preference",
        "meta.train",
        "meta.newcomers",
        "space.lists",
        "space.channels.symmetric",
        "math.prefixes",
    } <= of_ours
    modules = [f"mecold.evaluation.systems.{name}" for name in ("ours", "text", "item_to_item")]
    assert len({code_fingerprint(module) for module in modules}) == 3


def test_a_system_in_a_file_of_its_own_gets_no_lists_of_an_earlier_state_of_that_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file, marks = tmp_path / "own_system_for_cache.py", []
    for text in ("x = 1\n", "x = 2\n", "x = 2\nfrom mecold.evaluation.systems.ours import Mecold\n"):
        file.write_text(text)
        importlib.import_module(file.stem)
        code_fingerprint.cache_clear()
        marks.append(code_fingerprint(file.stem))
    assert len(set(marks)) == 3


def test_text_baselines_read_texts_and_fall_back_to_popularity(training, supports, shop):
    kinds = shop.item_type
    row_kind = np.array([kinds[int(item[1:])] for item in training.dataset.catalog.ids])
    popular = np.argsort(-training.counts, kind="stable")[:10]
    for system in (Content(), TextRidge(), TextLogistic()):
        fitted = system.fit(training)
        lists = top(fitted.scores(fitted.adapt(supports)), supports, None, 10)
        assert set(training.counts[lists[0]]) == set(training.counts[popular])
        same = (row_kind[lists[1]] == row_kind[supports[1][0]]).mean()
        assert same >= 0.2, system.name  # by chance one in sixty


def test_the_ridge_head_is_the_closed_form(training, supports):
    fitted = TextRidge(l2=0.3, spread=4.0).fit(training)
    V = training.vectors.astype(np.float64)
    gram = 4.0 * V.T @ V / len(V)
    for head, support in zip(fitted.adapt(supports), supports, strict=True):
        expected = reference.ridge(
            V[support], np.ones(len(support)), np.zeros(V.shape[1]), np.full(V.shape[1], 0.3), gram=gram
        )
        np.testing.assert_allclose(head, expected, atol=1e-4)


def test_lists_leave_out_the_support_and_what_is_no_candidate(training):
    fitted = ItemKNN().fit(training)
    histories = training.log.split()[:700]
    tasks = Tasks(
        training.log.users.head(len(histories)),
        [h[:4] for h in histories],
        [h[4:5] for h in histories],
        np.full(len(histories), np.nan),
    )
    for candidates in (None, np.arange(0, training.n_items, 3)):
        lists = rank(Ranker(fitted), tasks, candidates, 20, training.n_items)
        assert lists.shape == (len(histories), 20)
        for row, support in zip(lists, tasks.supports, strict=True):
            assert not set(row.tolist()) & set(support.tolist())
            assert len(set(row.tolist())) == 20
            assert candidates is None or set(row.tolist()) <= set(candidates.tolist())
    few = rank(Ranker(fitted), tasks, np.array([1, 2]), 20, training.n_items)
    assert (few >= 0).sum(1).max() <= 2


def test_scores_of_the_wrong_shape_or_nan_are_refused(training):
    class Bad:
        def __init__(self, scores):
            self.made = scores

        def adapt(self, supports):
            return len(supports)

        def scores(self, state):
            return self.made(state)

    tasks = Tasks(training.log.users.head(2), [np.array([1]), np.array([2])], [np.array([3])] * 2, np.full(2, np.nan))
    with pytest.raises(InvalidDataError, match="shape"):
        rank(Ranker(Bad(lambda users: np.zeros((users, 3)))), tasks, None, 5, training.n_items)
    with pytest.raises(InvalidDataError, match="NaN"):
        rank(Ranker(Bad(lambda users: np.full((users, training.n_items), np.nan))), tasks, None, 5, training.n_items)


def test_beyond_accuracy_on_lists_whose_answer_is_known():
    world = ItemFacts(
        np.array([8, 4, 4, 0], np.float32), 8, np.array([1, 2, 3, 4]), np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    )
    found = beyond(np.array([[0, 1], [0, 3]], np.int32), world, k=2)
    assert found["coverage"] == 0.75
    assert found["gini"] == pytest.approx(sum(abs(a - b) for a in (2, 1, 0, 1) for b in (2, 1, 0, 1)) / (2 * 4 * 4))
    assert found["popularity_percentile"] == pytest.approx((0.875 * 2 + 0.5 + 0.125) / 4)
    assert found["novelty"] == pytest.approx((0 + 1 + 0 + 4) / 4)
    assert found["new_items"] == 0.25
    assert found["diversity"] == pytest.approx(0.5)  # the first list's texts are equal, the second's orthogonal


def test_slices_count_targets_by_kind():
    counts = np.array([0, 1, 2, 3, 4, 5], np.float32)
    tasks = Tasks(
        pl.Series([1, 2]), [np.array([5]), np.array([1])], [np.array([0, 4]), np.array([3])], np.full(2, np.nan)
    )
    lists = np.array([[4, 1, 2], [0, 1, 2]], np.int32)
    found = slices(lists, tasks, ItemFacts(counts, 5, np.arange(6)), np.array([0.5, 0.25], np.float32), "ndcg@10")
    assert found["target warm or cold"] == {
        "cold": {"found@20": 0.0, "count": 1},
        "warm": {"found@20": 0.5, "count": 2},
    }
    assert found["support popularity"] == {
        "common": {"ndcg@10": 0.5, "count": 1}, "rare": {"ndcg@10": 0.25, "count": 1},
    }  # fmt: skip


def test_the_zero_shot_list_without_the_support():
    lists = without_support(np.array([5, 3, 1, 0]), [np.array([3, 5]), np.array([], int)], 3)
    assert lists.tolist() == [[1, 0, -1], [5, 3, 1]]


def test_the_bootstrap_has_the_width_that_theory_says():
    values = np.random.default_rng(0).gamma(1.0, size=(400, 1))
    low, high = interval(replicates([(np.arange(400), values)], 400, resamples=4000))
    half = 1.96 * values.std() / 20
    assert low[0] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_users_who_are_tested_under_two_seeds_are_one_unit():
    values = np.random.default_rng(0).normal(size=(300, 1))
    users = np.arange(300)
    once = interval(replicates([(users, values)], 300))
    twice = interval(replicates([(users, values), (users, values)], 300))
    np.testing.assert_allclose(once, twice, atol=1e-6)
    apart = interval(replicates([(users, values), (users + 300, values)], 600))
    assert np.diff(apart, axis=0)[0] < 0.8 * np.diff(once, axis=0)[0]


def test_sign_flip_is_the_exact_test_where_it_can_be_counted():
    values = np.array([0.5, 1.0, -0.25, 2.0, 0.75, -0.1, 0.3])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1)
    exact = (np.abs(values @ signs) >= abs(values.sum()) - 1e-12).mean()
    assert sign_flip(values, permutations=40_000) == pytest.approx(exact, abs=0.01)
    assert sign_flip(np.zeros(5)) == 1.0


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=8))
def test_holm_is_the_step_down_of_its_definition(values):
    found = holm({str(i): p for i, p in enumerate(values)})
    order = np.argsort(values, kind="stable")
    for rank_, place in enumerate(order):
        steps = [min(1.0, (len(values) - r) * values[order[r]]) for r in range(rank_ + 1)]
        assert found[str(place)] == pytest.approx(max(steps))


def test_histograms_count_everything_once():
    values = np.random.default_rng(0).zipf(1.7, 500)
    found = histogram(values)
    assert sum(found.counts) == 500
    assert len(found.edges) == len(found.counts) + 1
