"""The face: what a caller can rely on."""

import json
import math
import threading

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold import Interaction, InvalidDataError, NotFittedError, Recommender, UnknownItemError, UserState
from tests.conftest import SMALL, assert_same


def names(found):
    return [one.item for one in found]


def test_exactly_k_items_none_seen_none_excluded_best_first(fitted, shop):
    user = fitted.adapt_user(["p1", "p2", "p3"])
    full = fitted.recommend(user, k=300)
    assert len(full) == 297  # fewer than k: that is all there is
    assert not {"p1", "p2", "p3"} & set(names(full))
    assert [one.score for one in full] == sorted((one.score for one in full), reverse=True)
    assert_same(fitted.recommend(user, k=7), full[:7])
    some = names(full)[:5]
    assert names(fitted.recommend(user, k=4, exclude=some)) == names(full)[5:9]
    assert len(fitted.recommend(user, k=300, include_seen=True)) == 300


def test_given_items_are_scored_as_they_are_ranked(fitted):
    user = fitted.adapt_user(["p1", "p2"])
    ranked = fitted.recommend(user, k=300, include_seen=True)
    shuffled = [*reversed(ranked), ranked[0]]
    found = fitted.scores(user, names(shuffled))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [one.score for one in shuffled], rtol=1e-5, atol=1e-5)
    assert fitted.scores(user, []).shape == (0,)
    with pytest.raises(UnknownItemError, match="'nope'"):
        fitted.scores(user, ["p1", "nope"])
    with pytest.raises(InvalidDataError, match="items"):
        fitted.scores(user, "p1")


def test_an_allow_list_ranks_just_what_it_allows(fitted):
    user = fitted.adapt_user(["p1", "p2"])
    allowed = ["p9", "p1", "p50", "p7", "p7"]
    order = [item for item in names(fitted.recommend(user, k=300)) if item in allowed]
    assert names(fitted.recommend(user, k=10, among=allowed)) == order
    assert fitted.recommend(user, k=10, among=[]) == []
    with pytest.raises(UnknownItemError, match="'nope'"):
        fitted.recommend(user, among=["nope"])


def test_adapting_one_user_changes_neither_another_nor_the_model(fitted):
    before, first = fitted.info(), fitted.adapt_user(["p1", "p2"])
    query, trust = first.query.copy(), first.trust.copy()
    fitted.adapt_user(["p3"] * 5 + ["p4"])
    assert np.array_equal(first.query, query)
    assert np.array_equal(first.trust, trust)
    assert fitted.adapt_user(["p1", "p2"]) == first
    assert fitted.info() == before
    for numbers in (first.query, first.trust):
        with pytest.raises(ValueError, match="read-only"):
            numbers[0] = 1.0


def test_a_state_survives_json_and_bytes_and_nonsense_is_refused(fitted):
    user = fitted.adapt_user(["p1", "p2"])
    assert UserState.from_json(user.to_json()) == user
    assert UserState.from_bytes(user.to_bytes()) == user
    assert fitted.recommend(UserState.from_bytes(user.to_bytes())) == fitted.recommend(user)
    told = json.loads(user.to_json())
    for text in ('{"query": 3}', "[" * 100_000, *(json.dumps(told | bad) for bad in ({"seen": [True]}, {"shots": -1}))):
        with pytest.raises(InvalidDataError, match="not a saved UserState"):
            UserState.from_json(text)
    strange = json.loads(user.to_json()) | {"model": "other"}
    with pytest.raises(InvalidDataError, match="adapted by the model other"):
        fitted.recommend(UserState.from_json(json.dumps(strange)))


def test_numpy_ids_become_plain_ones(fitted):
    user = fitted.adapt_user(np.array(["p1", "p2"]))
    assert user == fitted.adapt_user(["p1", "p2"])
    assert UserState.from_json(user.to_json()) == user


def test_a_batch_is_its_users_one_by_one(fitted, shop):
    log = shop.interactions.head(600)
    lists = fitted.recommend_batch(log, k=5, users=["nobody", "no one"])
    states = fitted.adapt_users(log)
    histories = log.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True)
    for user, items, times in histories.agg("item_id", "timestamp").iter_rows():
        alone = fitted.adapt_user([Interaction(i, time=t) for i, t in zip(items, times, strict=True)])
        assert alone.seen == states[user].seen
        np.testing.assert_allclose(alone.query, states[user].query, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.trust, states[user].trust, rtol=1e-4, atol=1e-5)
        found = lists.filter(pl.col("user_id") == user)
        assert found["item_id"].to_list() == names(fitted.recommend(states[user], k=5))
        assert found["rank"].to_list() == [1, 2, 3, 4, 5]
    zero = names(fitted.recommend(fitted.adapt_user([]), k=5))
    assert lists.filter(pl.col("user_id") == "nobody")["item_id"].to_list() == zero
    with pytest.raises(InvalidDataError, match="1 have a history"):
        fitted.recommend_batch(log, users=[log["user_id"][0]])


@pytest.mark.parametrize("index", ["auto", "flat"])
def test_a_batch_leaves_out_and_restricts_as_one_user_does(index, encoder, shop):
    log = shop.interactions.head(60)
    other = Recommender(encoder, config=SMALL, index=index, rng=0)
    other.fit_meta(shop.interactions, shop.items)
    some = shop.items["item_id"].to_list()[40:90]
    for wanted in ({"exclude": [*some, "unknown"]}, {"among": some}, {"among": some, "exclude": some[:30]}):
        lists = other.recommend_batch(log, k=30, **wanted)
        for user, state in other.adapt_users(log).items():
            found = lists.filter(pl.col("user_id") == user)["item_id"].to_list()
            assert found == names(other.recommend(state, k=30, **wanted))
    with pytest.raises(UnknownItemError, match="among"):
        other.recommend_batch(log, among=["unknown"])


def test_times_order_a_history_and_without_times_the_list_does(fitted):
    inorder = fitted.adapt_user(["p1", "p2", "p3"])
    timed = fitted.adapt_user([Interaction("p3", time=9), Interaction("p1", time=1), Interaction("p2", time=5)])
    assert np.array_equal(timed.query, inorder.query)
    assert not np.array_equal(fitted.adapt_user(["p3", "p2", "p1"]).query, inorder.query)


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        (["p1", "zz", 7], InvalidDataError, "strings and integers mixed"),
        (["p1", "zz"], UnknownItemError, r"1 of the user's 2 items.*'zz'"),
        ([7], InvalidDataError, r"`history` has ids that are integers, such as 7; the catalogue's are strings"),
        ("p1", InvalidDataError, "pass a list"),
        ([Interaction("p1", math.nan)], InvalidDataError, "finite label"),
        ([Interaction("p1", weight=0.0)], InvalidDataError, "positive"),
        ([Interaction("p1", time=1.0), "p2"], InvalidDataError, "1 of 2 interactions have a time"),
    ],
)
def test_a_history_that_cannot_be_used_is_named(fitted, history, error, message):
    with pytest.raises(error, match=message):
        fitted.adapt_user(history)


def test_unknown_items_can_be_dropped_but_still_count_as_seen(fitted):
    user = fitted.adapt_user(["p1", "zz"], on_unknown="drop")
    assert user.seen == ("p1", "zz")
    assert user.shots == 1
    assert np.array_equal(user.query, fitted.adapt_user(["p1"]).query)
    assert user.trust[0] == fitted.adapt_user(["p1"]).trust[0] != 0
    assert user.trust[1] == 0


@pytest.mark.parametrize("k", [0, -1, True])
def test_k_must_be_a_positive_integer(fitted, k):
    with pytest.raises(InvalidDataError, match=f"k={k} must be a positive integer"):
        fitted.recommend(fitted.adapt_user([]), k=k)


def test_without_a_model_every_call_says_what_to_do():
    for call in (lambda r: r.adapt_user([]), lambda r: r.info(), lambda r: r.similar_items("a"), lambda r: r.save("x")):
        with pytest.raises(NotFittedError, match="fit_meta"):
            call(Recommender())


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 299), st.sampled_from([-1.0, 0.5, 1.0])),
        min_size=1,
        max_size=24,
        unique_by=lambda r: r[0],
    ),
    item=st.integers(0, 299),
)
def test_contributions_add_up_and_are_what_leaving_an_opinion_out_costs(fitted, rows, item):
    history = [Interaction(f"p{row}", label) for row, label in rows]
    why = fitted.explain(history, f"p{item}")

    def score(support):
        shelf = fitted._state[1]
        return float(shelf.space.scores(shelf.vectors_of(fitted.adapt_user(support)))[0, item])

    assert why.score == pytest.approx(score(history), abs=1e-4)
    assert why.base + sum(value for _, value in why.contributions) == pytest.approx(why.score, abs=1e-3)
    for place, one in enumerate(history):
        without = [*history[:place], one._replace(label=0.0), *history[place + 1 :]]
        assert dict(why.contributions)[one.item] == pytest.approx(why.score - score(without), abs=1e-3)


def test_new_items_are_found_by_their_text_and_can_be_changed_and_removed(own, shop):
    before = own.adapt_user(["p1", "p2"])
    twin = shop.items.filter(pl.col("item_id") == "p7").with_columns(item_id=pl.lit("pen"))
    own.add_items(
        pl.concat(
            [
                twin,
                twin.with_columns(
                    item_id=pl.lit("tent"), title=pl.lit("one"), brand=None, category=None, description=None
                ),
            ]
        )
    )
    assert own.info()["items"] == 302
    assert own.adapt_user(["p1", "p2"]) == before  # a new item changes nobody's query
    assert "p7" in names(own.similar_items("pen", k=5))  # the same text
    assert len(own.recommend(before, k=400)) == 300

    own.update_items(pl.DataFrame({"item_id": ["pen"], "title": ["one"]}))
    twins = [own.adapt_user([item]).query for item in ("pen", "tent")]
    np.testing.assert_allclose(*twins, atol=1e-5)

    own.remove_items(["pen", "p5"])
    assert own.info()["items"] == 300
    assert not {"pen", "p5"} & set(names(own.recommend(before, k=400)))
    with pytest.raises(UnknownItemError):
        own.adapt_user(["p5"])
    own.add_items(pl.DataFrame({"item_id": ["p5"], "title": ["one"]}))  # an id may come back
    assert "p5" in names(own.recommend(before, k=400))


def test_neighbours_survive_new_texts_removals_and_packing(own):
    before = {one.item: one.score for one in own.similar_items("p1", k=20)}
    near = own._state[1].space.lists
    nearest = f"p{int(near.rows[1, 0])}"
    assert near.values[1, 0] > 0
    own.update_items(pl.DataFrame({"item_id": [nearest], "title": ["one"]}))
    row = own._state[1].catalog.row(nearest)
    assert row == 300
    assert int(own._state[1].space.lists.rows[1, 0]) == row  # the neighbour's new row
    own.remove_items([f"p{row}" for row in range(100, 200) if f"p{row}" != nearest])  # so many that the shelf is packed
    shelf = own._state[1]
    assert not shelf.dead.any()
    packed, row = shelf.space.lists, shelf.catalog.row("p1")
    old = {f"p{int(place)}" for place in near.rows[1][near.values[1] > 0]}
    assert set(shelf.ids(packed.rows[row][packed.values[row] > 0].cpu().numpy())) == {
        item for item in old if item in shelf.catalog
    }
    after = {one.item: one.score for one in own.similar_items("p1", k=200)}
    for item in {item for item in before if item in shelf.catalog} - {nearest}:
        assert after[item] == pytest.approx(before[item], abs=1e-4)


def test_a_refused_change_of_the_catalogue_changes_nothing(own):
    before = own.info()
    new = pl.DataFrame({"item_id": ["fresh", "p1"], "title": ["one", "two"]})
    with pytest.raises(InvalidDataError, match=r"1 of 2 items are in the catalogue already: 'p1'.*update_items"):
        own.add_items(new)
    with pytest.raises(UnknownItemError, match="'fresh'"):
        own.update_items(new)
    with pytest.raises(UnknownItemError, match="'fresh'"):
        own.remove_items(["p1", "fresh"])
    with pytest.raises(InvalidDataError, match="every item"):
        own.remove_items([f"p{i}" for i in range(300)])
    with pytest.raises(InvalidDataError, match="Cast one of them"):
        own.add_items(pl.DataFrame({"item_id": [1], "title": ["one"]}))
    assert own.info() == before


def test_readers_see_the_old_or_the_new_catalogue_never_half(own):
    pair = pl.DataFrame({"item_id": ["x1", "x2"], "title": ["one", "one"]})
    user, wrong, stop = own.adapt_user(["p1"]), [], threading.Event()

    def read():
        while not stop.is_set():
            found = set(names(own.recommend(user, k=400)))
            if len(found & {"x1", "x2"}) == 1 or len(found) not in (299, 301):
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(30):
        own.add_items(pair)
        own.remove_items(["x1", "x2"])
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_similar_items_share_the_product_type(fitted, shop):
    kind = dict(zip(shop.items["item_id"], shop.item_type, strict=True))
    ids = [f"p{i}" for i in range(0, 300, 7)]
    share = np.mean([kind[one.item] == kind[i] for i in ids for one in fitted.similar_items(i, k=2)])
    assert share > 10 / 60  # sixty types: chance is 1/60
    assert all(i not in names(fitted.similar_items(i, k=50)) for i in ids)


def test_repeats_with_times_count_by_time_whatever_the_order_of_the_list(fitted):
    rows = [Interaction("p1", time=9), Interaction("p2", time=5), Interaction("p1", time=1)]
    assert fitted.adapt_user(rows) == fitted.adapt_user(rows[::-1])
    assert fitted.adapt_user(rows).seen == ("p1", "p2")


def test_one_bare_id_where_a_list_belongs_is_refused(fitted):
    user = fitted.adapt_user([])
    for wrong in ({"exclude": "p5"}, {"among": "p5"}):
        with pytest.raises(InvalidDataError, match="'p5' is one text"):
            fitted.recommend(user, **wrong)


def test_users_whose_items_are_all_unknown_get_the_zero_shot_list(fitted):
    frame = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["p1", "gone", "gone"], "position": [0, 1, 0]})
    with pytest.warns(UserWarning, match="2 interactions of 1 unknown items"):
        lists = fitted.recommend_batch(frame, k=2, on_unknown="drop")
    zero = names(fitted.recommend(fitted.adapt_user([]), k=2))
    assert lists.filter(pl.col("user_id") == "b")["item_id"].to_list() == zero
    with pytest.warns(UserWarning, match="unknown"):
        states = fitted.adapt_users(frame, on_unknown="drop")
    assert {user: state.seen for user, state in states.items()} == {"a": ("p1", "gone"), "b": ("gone",)}
    nobody = fitted.recommend_batch(frame.clear(), k=2, users=["x"])
    assert nobody["item_id"].to_list() == zero
    assert fitted.recommend_batch(frame.clear(), k=2).height == 0


def test_an_update_keeps_what_interactions_say_even_without_factors(shop, fit):
    from dataclasses import replace

    recommender = fit(
        shop.interactions, shop.items, replace(SMALL, factors=replace(SMALL.factors, symmetric_rank=0, directed_rank=0))
    )
    before = recommender.recommend(recommender.adapt_user([]), k=300)
    recommender.update_items(shop.items)  # the same texts again
    after = {one.item: one.score for one in recommender.recommend(recommender.adapt_user([]), k=300)}
    assert after == pytest.approx({one.item: one.score for one in before}, abs=1e-5)
    touched = set(shop.interactions["item_id"])
    assert recommender.info()["cold_items"] == 300 - len(touched)


def test_items_without_text_and_later_frames_with_fewer_columns_are_fine(shop, fit):
    items = shop.items.with_columns(
        [pl.when(pl.col("item_id") == "p3").then(None).otherwise(pl.col(c)).alias(c) for c in shop.items.columns[1:]]
    )
    with pytest.warns(UserWarning, match="1 items have no text"):
        recommender = fit(shop.interactions, items)
    recommender.add_items(pl.DataFrame({"item_id": ["new"], "title": ["one"], "note": ["not part of the text"]}))
    assert recommender.text_of("new") == "one"
