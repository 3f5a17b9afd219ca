"""Behaviour and audiences: what past tasks teach, what a few answers add, and who will want an item."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from typer.testing import CliRunner

from mecold import (
    BehaviourState,
    BehaviourTask,
    InvalidDataError,
    ModelFileError,
    Recommender,
    UnknownItemError,
    past_behaviours,
    past_tastes,
    user_features,
)  # fmt: skip
from mecold.cli.main import app
from mecold.data.features import Features
from mecold.heads.answers import Start, adapt, probabilities
from mecold.heads.audience import Crowd
from mecold.space.profiles import had

DAY = 86400.0


def auc(labels, score):
    found, ranks = np.asarray(labels, bool), stats.rankdata(np.asarray(score))
    n = int(found.sum())
    return (ranks[found].sum() - n * (n + 1) / 2) / (n * (len(ranks) - n))


def task_of(rng, users, weights, name, group, start=0):
    rows = rng.normal(size=(users, 3))
    label = rng.random(users) < 1 / (1 + np.exp(-(rows @ weights - 1)))
    columns = {f"x{at}": rows[:, at] for at in range(3)}
    place = ["north", "south"]
    return pl.DataFrame(
        {"user_id": np.arange(start, start + users), "behaviour": name, "group": group, "label": label.astype(int), **columns,
         "place": [place[int(one)] for one in rng.random(users) < 0.5]}
    )  # fmt: skip


WEIGHTS = np.array([1.5, -1.0, 0.0])


@pytest.fixture(scope="module")
def past():
    rng = np.random.default_rng(0)
    same = [task_of(rng, 400, WEIGHTS + rng.normal(0, 0.1, 3), "pays", f"g{n}", 1000 * n) for n in range(5)]
    other = [task_of(rng, 400, rng.normal(0, 1.5, 3), f"odd {n}", "one", 10_000 + 1000 * n) for n in range(6)]
    return pl.concat([*same, *other])


@pytest.fixture(scope="module")
def task(past):
    return BehaviourTask.fit_meta(past)


@pytest.fixture(scope="module")
def unseen():
    return task_of(np.random.default_rng(9), 2000, WEIGHTS, "pays", "new")


def known_of(frame, count):
    return dict(frame.head(count).select("user_id", "label").iter_rows())


# ---- the head


def test_the_head_finds_the_mode_of_its_posterior_nearly_and_the_prior_without_rows():
    rng = np.random.default_rng(1)
    rows, prior, variance = rng.normal(size=(60, 3)), np.array([0.5, -0.2, 0.0]), np.array([0.3, 0.2, 2.0])
    labels = (rng.random(60) < 1 / (1 + np.exp(-rows @ WEIGHTS))).astype(float)

    def negative(w):
        return np.logaddexp(0, rows @ w).sum() - labels @ (rows @ w) + ((w - prior) ** 2 / variance).sum() / 2

    best = optimize.minimize(negative, prior, method="BFGS").x
    start = Start(torch.from_numpy(prior), torch.from_numpy(variance))
    users, answers = torch.from_numpy(rows)[None].expand(2, -1, -1), torch.from_numpy(labels)[None].expand(2, -1)
    mask = torch.stack([torch.ones(60, dtype=torch.bool), torch.zeros(60, dtype=torch.bool)])
    mean, covariance = adapt(start, users, answers, mask, rounds=50)
    np.testing.assert_allclose(mean[0], best, atol=0.12)  # a mean beside a mode
    np.testing.assert_allclose(mean[1], prior, atol=1e-12)
    np.testing.assert_allclose(covariance[1], np.diag(variance), atol=1e-12)
    assert (covariance[0].diagonal() < torch.from_numpy(variance)).all()


def test_a_batch_of_tasks_is_adapted_as_each_of_them_alone_and_padding_is_nothing():
    rng = torch.Generator().manual_seed(0)
    users, labels = torch.randn(3, 8, 4, generator=rng).double(), (torch.rand(3, 8, generator=rng) < 0.5).double()
    mask = torch.arange(8) < torch.tensor([[8], [3], [1]])
    start = Start(torch.zeros(4).double(), torch.ones(4).double())
    mean, covariance = adapt(start, users, labels, mask)
    for one, size in enumerate((8, 3, 1)):
        alone = adapt(start, users[[one], :size], labels[[one], :size], mask[[one], :size])
        torch.testing.assert_close(mean[[one]], alone[0])
        torch.testing.assert_close(covariance[[one]], alone[1])


def test_the_head_can_be_learned_through():
    rows = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    mask, labels = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double()

    def through(mean, variance):
        return adapt(Start(mean, variance), rows, labels, mask, rounds=4)[0]

    inputs = torch.zeros(3).double().requires_grad_(), torch.ones(3).double().requires_grad_()
    assert torch.autograd.gradcheck(through, inputs)
    assert torch.autograd.gradgradcheck(through, inputs)


@given(st.floats(-6, 6), st.floats(0, 20))
@settings(max_examples=50, deadline=None)
def test_doubt_draws_probabilities_towards_a_half(mean, variance):
    sure, doubtful = (
        float(probabilities(torch.tensor([mean]).double(), torch.tensor([v]).double())) for v in (0, variance)
    )
    assert abs(doubtful - 0.5) <= abs(sure - 0.5) + 1e-12


# ---- tasks


def test_a_known_behaviour_is_foretold_before_anybody_is_labelled(task, unseen):
    found = task.score(task.adapt(like="pays"), unseen)
    assert found.columns == ["user_id", "probability", "low", "high"]
    assert auc(unseen["label"], found["probability"]) > 0.8
    assert found["probability"].mean() == pytest.approx(unseen["label"].mean(), abs=0.05)


def test_few_answers_do_no_harm_to_what_is_known_and_tell_what_is_not(task, unseen):
    test = unseen.tail(1500)
    before = auc(test["label"], task.score(task.adapt(like="pays"), test)["probability"])
    for count in (2, 10, 40):
        state = task.adapt(unseen, known_of(unseen, count), like="pays")
        assert auc(test["label"], task.score(state, test)["probability"]) > before - 0.01
    marks = [
        auc(test["label"], task.score(task.adapt(unseen, known_of(unseen, n)), test)["probability"]) for n in (10, 200)
    ]
    assert 0.55 < marks[0] < marks[1]


def test_probabilities_are_calibrated_and_their_intervals_narrow(task, unseen):
    test, widths = unseen.tail(1500), []
    for count in (20, 400):
        found = task.score(task.adapt(unseen, known_of(unseen, count)), test)
        widths.append((found["high"] - found["low"]).mean())
    order = np.argsort(found["probability"])
    told, true = (np.array_split(one.to_numpy()[order], 5) for one in (found["probability"], test["label"]))
    assert np.mean([abs(a.mean() - b.mean()) for a, b in zip(told, true, strict=True)]) < 0.06
    assert widths[1] < widths[0] / 1.5


def test_users_chosen_by_what_they_did_are_put_right_by_the_rate(task, unseen):
    pool = unseen.head(1000)
    chosen = pl.concat([pool.filter(pl.col("label") == one).head(100) for one in (0, 1)])
    answers, test = dict(chosen.select("user_id", "label").iter_rows()), unseen.tail(1000)
    rate = float(unseen["label"].mean())
    off, right = (task.score(task.adapt(pool, answers, rate=one), test)["probability"].mean() for one in (None, rate))
    assert off > rate + 0.1
    assert right == pytest.approx(rate, abs=0.04)


def test_many_behaviours_are_adapted_as_each_alone(task, unseen):
    frames = [
        unseen.slice(100 * n, size).select("user_id", pl.lit(name).alias("behaviour"), "label")
        for n, (name, size) in enumerate({"pays": 30, "a": 20, "b": 7}.items())
    ]
    found = task.adapt_each(unseen, pl.concat(frames))
    assert list(found) == ["a", "b", "pays"]
    for name, frame in zip(("pays", "a", "b"), frames, strict=True):
        alone = task.adapt(unseen, frame.drop("behaviour"), like="pays" if name == "pays" else None)
        np.testing.assert_allclose(found[name].weight, alone.weight, rtol=1e-4, atol=1e-6)
        assert (found[name].did, found[name].did_not, found[name].like) == (alone.did, alone.did_not, alone.like)


def test_answers_of_one_kind_alone_are_read_without_certainty(task, unseen):
    yes = unseen.filter(pl.col("label") == 1).head(5)
    state = task.adapt(yes, dict.fromkeys(yes["user_id"], 1), rate=0.3)
    assert (state.did, state.did_not) == (5, 0)
    found = task.score(state, unseen)["probability"]
    assert 0.02 < found.mean() < 0.98


def test_a_state_survives_bytes_and_a_task_a_folder(task, unseen, tmp_path):
    state = task.adapt(unseen, known_of(unseen, 10))
    assert BehaviourState.from_bytes(state.to_bytes()) == state
    with pytest.raises(ValueError, match="read-only"):
        state.weight[0] = 1
    task.save(tmp_path / "task")
    again = BehaviourTask.load(tmp_path / "task")
    assert again.fingerprint == task.fingerprint
    assert again.score(state, unseen).equals(task.score(state, unseen))
    assert again.adapt(like="pays") == task.adapt(like="pays")
    (tmp_path / "task" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match="weights"):
        BehaviourTask.load(tmp_path / "task")


def test_states_of_others_and_nonsense_are_refused(task, unseen):
    state = task.adapt(like="pays")
    foreign = BehaviourState.from_json(json.dumps(json.loads(state.to_json()) | {"model": "another"}))
    with pytest.raises(InvalidDataError, match="another"):
        task.score(foreign, unseen)
    for text in ("{}", "no", json.dumps(json.loads(state.to_json()) | {"covariance": "AAAA"})):
        with pytest.raises(InvalidDataError, match="BehaviourState"):
            BehaviourState.from_json(text)


def test_bad_past_is_refused_with_counts(past):
    third = pl.int_range(pl.len()) == 3
    cases = {
        "label": (past.with_columns(label=pl.lit(2)), r"4,400 of 4,400 labels"),
        "words": (past.with_columns(label=pl.lit("yes")), "label of the past"),
        "twice": (pl.concat([past, past.head(2)]), "name a user of one task again"),
        "both": (pl.concat([past, past.head(1).with_columns(label=1 - pl.col("label"))]), "1 of them with both labels"),
        "one class": (past.with_columns(label=pl.lit(1)), "0 of 11 past tasks"),
        "few": (past.filter(pl.col("group") == "g1"), "1 of 1 past tasks"),
        "infinite": (past.with_columns(x0=pl.when(third).then(float("inf")).otherwise("x0")), "1 of 4,400 values of x0"),
        "times": (past.with_columns(x0=pl.lit("2024-01-01").str.to_date()), "x0 .*Date"),
        "nothing": (past.select("user_id", "behaviour", "group", "label"), "no features"),
    }  # fmt: skip
    for frame, match in cases.values():
        with pytest.raises(InvalidDataError, match=match):
            BehaviourTask.fit_meta(frame)


def test_bad_answers_are_refused_with_counts(task, unseen):
    some = unseen.head(5)
    for call, match in (
        (lambda: task.adapt(some, {99999: 1}), "1 of 1 labelled users"),
        (lambda: task.adapt(some, {0: 1, 1: 0.5}), r"1 of 2 labels .*\(1, 0\.5\)"),
        (lambda: task.adapt(some.drop("x1"), {0: 1}), "x1"),
        (lambda: task.adapt(pl.concat([some, some]), {0: 1}), "5 of 10 rows of the users name a user again"),
        (lambda: task.adapt(some, {0: 1}, like="sings"), "like='sings'"),
        (lambda: task.adapt(some, {0: 1}, rate=1.0), r"rate=1\.0"),
        (lambda: task.adapt(None, {0: 1}), "no users"),
        (lambda: task.score(task.adapt(like="pays"), some.drop("place")), "place"),
        (lambda: task.score(task.adapt(like="pays"), some, share=1.0), r"share=1\.0"),
    ):
        with pytest.raises(InvalidDataError, match=match):
            call()


def test_what_is_not_known_is_the_average_and_names_never_met_are_none(task, unseen):
    frame = unseen.head(50).with_columns(x2=pl.lit(None, pl.Float64), place=pl.lit("moon"))
    found = task.score(task.adapt(like="pays"), frame)
    assert found["probability"].is_finite().all()


def test_pandas_frames_do_as_well(task, unseen):
    state = task.adapt(unseen.head(20).to_pandas(), known_of(unseen, 20))
    assert task.score(state, unseen.to_pandas()).equals(task.score(state, unseen))


def test_features_have_no_outliers_and_vectors_keep_their_directions():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"money": [*rng.lognormal(0, 1, 999), 1e12], "vector": rng.normal(size=(1000, 4)) * [4, 1, 1, 0.1]}
    )
    found = Features.of(frame, ["money", "vector"], "users")
    rows = found.matrix(frame, "users")
    assert np.abs(rows).max() <= 5
    assert rows.shape == (1000, 7)
    spread = rows[:, 2:6].std(0)
    np.testing.assert_allclose(spread / spread[1], [4, 1, 1, 0.1], rtol=0.1)
    assert found.blocks.tolist() == [0, 0, 1, 1, 1, 1, 2]


# ---- the log itself


@pytest.fixture(scope="module")
def diary():
    """Two kinds of users: who comes every few days, and who came once; the second kind is gone."""
    rng, rows = np.random.default_rng(3), []
    for user in range(300):
        times = np.arange(rng.uniform(0, 5), 300, rng.uniform(5, 20)) if user % 2 else rng.uniform(0, 120, 2)
        rows += [
            (user, f"i{rng.integers(40)}", float(one * DAY), float(rng.lognormal()), f"k{user % 3}") for one in times
        ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "amount", "kind"], orient="row")


def test_labels_are_of_the_days_after_and_features_of_those_before(diary):
    found = past_behaviours(diary, ahead=30.0, times=3)
    end = diary["timestamp"].max() + 1
    assert set(found["group"]) == {"30 days", "45 days", "60 days"}
    moment = end - 45 * DAY
    then = found.filter(pl.col("group") == "45 days")
    before = diary.filter(pl.col("timestamp") < moment)
    after = diary.filter(pl.col("timestamp").is_between(moment, moment + 30 * DAY, closed="left"))
    one = then.filter(pl.col("behaviour") == "came back")
    assert set(one["user_id"]) == set(before["user_id"])
    assert set(one.filter(pl.col("label") == 1)["user_id"]) == set(after["user_id"]) & set(before["user_id"])
    features = user_features(before, ahead=30.0, at=moment)
    assert one.select(features.columns).equals(features)
    again = set(after.select("user_id", "item_id").iter_rows()) & set(before.select("user_id", "item_id").iter_rows())
    returned = then.filter((pl.col("behaviour") == "returned to an item") & (pl.col("label") == 1))
    assert set(returned["user_id"]) == {user for user, _ in again}
    assert {"came back", "spent more", "returned to an item", "bought k1"} <= set(found["behaviour"])


def test_who_has_gone_is_told_from_who_comes_back(diary):
    until = 240 * DAY
    task = BehaviourTask.fit_meta(past_behaviours(diary, ahead=30.0, until=until))
    users = user_features(diary, ahead=30.0, at=until)
    found = task.score(task.adapt(like="came back"), users)
    assert auc(np.array(users["user_id"]) % 2, found["probability"]) > 0.95


def test_a_log_that_is_too_short_is_refused(diary):
    with pytest.raises(InvalidDataError, match="300 days long"):
        past_behaviours(diary, ahead=200.0)
    with pytest.raises(InvalidDataError, match="timestamp"):
        user_features(diary.drop("timestamp"))
    with pytest.raises(InvalidDataError, match="ahead=0"):
        user_features(diary, ahead=0.0)


def test_tastes_of_a_log_teach_how_far_a_new_question_goes(shop, fitted):
    rest, past = past_tastes(shop.interactions, items=40)
    assert rest.height < shop.interactions.height
    asked = past.filter(pl.col("behaviour") == past["behaviour"][0])
    item = asked["behaviour"][0].removeprefix("had ")
    assert not set(asked["user_id"]) & set(rest.filter(pl.col("item_id") == item)["user_id"])
    task = BehaviourTask.fit_meta(past, fitted.user_vectors(rest))
    vectors = fitted.user_vectors(shop.interactions)
    had = shop.interactions.join(shop.items, on="item_id").filter(pl.col("category") == "Coffee")["user_id"]
    label = vectors["user_id"].is_in(had.unique().implode())
    state = task.adapt(vectors, dict(zip(vectors["user_id"][:60], label[:60].cast(int), strict=True)))
    assert auc(label[60:], task.score(state, vectors[60:])["probability"]) > 0.7


def test_user_vectors_are_what_items_say_together_and_of_length_one(shop, fitted):
    found = fitted.user_vectors(shop.interactions)
    vectors = found["vector"].to_numpy()
    assert found["user_id"].to_list() == sorted(set(shop.interactions["user_id"]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    mixed, one, other = (shop.items["item_id"][:2], shop.items["item_id"][:1], shop.items["item_id"][1:2])
    frames = [
        pl.DataFrame([items, pl.Series("user_id", [name] * len(items))])
        for name, items in zip("abc", (mixed, one, other), strict=True)
    ]
    both, first, second = fitted.user_vectors(pl.concat(frames))["vector"].to_numpy()
    basis = np.stack([first, second])
    np.testing.assert_allclose(np.linalg.lstsq(basis.T, both)[0] @ basis, both, atol=1e-5)  # in their plane
    assert (np.linalg.lstsq(basis.T, both)[0] > 0).all()


# ---- audiences


@pytest.fixture(scope="module")
def new_items(shop, fit):
    """The shop without fifteen items of many buyers, which are in the catalogue all the same."""
    counts = shop.interactions.group_by("item_id").len().sort(["len", "item_id"], descending=True)
    gone = counts["item_id"][:45:3].to_list()
    known = shop.interactions.filter(~pl.col("item_id").is_in(gone))
    recommender = fit(known, shop.items)
    return recommender, known, gone, recommender.audiences(known)


def test_the_audience_of_a_new_item_is_found_from_its_text_and_better_from_its_first_takers(shop, new_items):
    _, known, gone, audiences = new_items
    marks = {}
    for item in gone:
        takers = shop.interactions.filter(pl.col("item_id") == item)["user_id"].unique().sort().to_list()
        takers = [one for one in takers if one in audiences]
        for k in (0, 10):
            found = audiences.of(item, len(audiences), seeds=takers[:k])
            assert len(found) == len(audiences) - k
            label = found["user_id"].is_in(takers[k:])
            marks.setdefault(k, []).append(auc(label, found["probability"]))
            activity = found.join(known.group_by("user_id").len(), on="user_id", how="left", maintain_order="left")[
                "len"
            ]
            marks.setdefault("activity", []).append(auc(label, activity))
    assert np.mean(marks[0]) > np.mean(marks["activity"]) + 0.03
    assert np.mean(marks[10]) > np.mean(marks[0]) - 0.01


def test_lists_are_as_long_as_asked_best_first_and_without_those_who_have_it(shop, fitted):
    item = shop.interactions["item_id"].mode()[0]
    have = set(shop.interactions.filter(pl.col("item_id") == item)["user_id"])
    found = fitted.audience(item, 7, histories=shop.interactions)
    assert found.columns == ["rank", "user_id", "probability"]
    assert found["rank"].to_list() == list(range(1, 8))
    assert found["probability"].is_sorted(descending=True)
    assert not have & set(found["user_id"])
    again = fitted.audience(item, 7, histories=shop.interactions.to_pandas())
    assert again.equals(found)


def test_users_like_some_users_are_found_without_an_item(shop, fitted):
    coffee = shop.items.filter(pl.col("category") == "Coffee")["item_id"]
    share = shop.interactions.group_by("user_id").agg(pl.col("item_id").is_in(coffee.implode()).mean().alias("share"))
    seeds = share.sort(["share", "user_id"], descending=True)["user_id"][:10].to_list()
    found = fitted.audience(None, 20, histories=shop.interactions, seeds=seeds)
    assert not set(seeds) & set(found["user_id"])
    of_found = share.filter(pl.col("user_id").is_in(found["user_id"].implode()))["share"].mean()
    assert of_found > 2 * share["share"].mean()


def test_signs_know_nothing_of_who_had_the_item_itself(shop):
    rng = np.random.default_rng(0)
    dense = (rng.random((40, 12)) < 0.4).astype(np.float32)
    sides, text = (rng.normal(size=(12, 5)).astype(np.float32) for _ in range(2))
    text /= np.linalg.norm(text, axis=1, keepdims=True)

    def crowd(matrix):
        users, items = np.nonzero(matrix)
        return Crowd(had(items, np.searchsorted(users, np.arange(41)), 12), sides, text)

    without = dense.copy()
    without[:, 3] = 0
    full, bare = crowd(dense), crowd(without)
    bare.__dict__["center"] = full.center  # the mean of all users may know of the item
    first = np.array([0, 5])
    found, expected = (one.signs(3, first, slice(None))[:, :6] for one in (full, bare))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_bad_questions_are_refused(shop, fitted, new_items):
    audiences = new_items[3]
    for call, kind, match in (
        (lambda: audiences.of("nothing"), UnknownItemError, "nothing"),
        (lambda: audiences.of(seeds=["stranger"]), InvalidDataError, "1 of 1 seeds .*'stranger'"),
        (lambda: audiences.of(), InvalidDataError, "seeds"),
        (lambda: audiences.of(shop.items["item_id"][0], 0), InvalidDataError, "k=0"),
        (lambda: fitted.audiences(shop.interactions.head(30)), InvalidDataError, "it takes 20"),
    ):
        with pytest.raises(kind, match=match):
            call()


def test_the_command_finds_an_audience(shop, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    shop.interactions.rename({"user_id": "customer"}).write_csv(tmp_path / "log.csv")
    item = shop.interactions["item_id"][0]
    words = [
        "audience",
        f"{tmp_path}/model",
        "--history",
        f"{tmp_path}/log.csv",
        "--column",
        "user_id=customer",
        "-k",
        "5",
    ]
    done = CliRunner().invoke(app, [*words, "--item", item, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    expected = Recommender.load(tmp_path / "model").audience(item, 5, histories=shop.interactions)
    assert [one["user_id"] for one in found] == expected["user_id"].to_list()
    seeds = [part for one in shop.interactions["user_id"].unique().sort()[:2] for part in ("--seed-user", str(one))]
    assert CliRunner().invoke(app, [*words, *seeds]).exit_code == 0
    assert CliRunner().invoke(app, words).exit_code == 1
