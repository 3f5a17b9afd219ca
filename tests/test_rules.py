"""What a shop decides beside the ranking: what is hidden, what a feed says, who may get what, how alike a list may be."""

import numpy as np
import polars as pl
import pytest
import torch

from mecold import DataWarning, InvalidDataError, Recommender, UnknownItemError
from tests.conftest import assert_same


def names(found):
    return [one.item for one in found]


# ---- hidden items


def test_a_hidden_item_is_in_no_list_and_comes_back_at_its_old_place(own, shop):
    log, user = shop.interactions.head(300), own.adapt_user(["p1", "p2"])
    whole, batch, near = own.recommend(user, k=300), own.recommend_batch(log, k=20), own.similar_items("p1", k=20)
    best = names(whole)[0]
    gone = [best, names(near)[0], "p2"]
    own.hide_items([*gone, best])
    assert own.info()["hidden_items"] == len(set(gone)) == len(own.item_ids(hidden=True))
    assert own.info()["items"] == 300
    assert_same(own.recommend(user, k=300), [one for one in whole if one.item not in gone])
    assert names(own.recommend(user, k=9, among=[*gone, "p9"])) == ["p9"]
    assert not set(gone) & set(names(own.similar_items("p1", k=300)))
    hidden = own.recommend_batch(log, k=20)
    assert not set(gone) & set(hidden["item_id"])
    assert hidden.height == batch.height  # exactly k while k are left
    own.show_items(gone)
    own.show_items(["p9"])  # it was never hidden
    assert own.info()["hidden_items"] == 0
    assert_same(own.recommend(user, k=300), whole)
    assert own.recommend_batch(log, k=20)["item_id"].equals(batch["item_id"])


def test_a_hidden_item_is_still_known(own):
    history, wanted = ["p1", "p5"], ["p1", "p5", "p7"]
    before = own.adapt_user(history)
    scores, why, near = own.scores(before, wanted), own.explain(history, "p5"), own.similar_items("p5", k=5)
    own.hide_items(["p1", "p5"])
    assert own.adapt_user(history) == before
    np.testing.assert_array_equal(own.scores(before, wanted), scores)
    assert own.explain(history, "p5") == why
    assert names(own.similar_items("p5", k=5)) == [item for item in names(near) if item != "p1"][:5]
    assert own.text_of("p5")
    # an item that is removed and added again is new
    cold = own.info()["cold_items"]
    text = own.text_of("p5")
    own.remove_items(["p5"])
    own.add_items(pl.DataFrame({"item_id": ["p5"], "title": ["one"]}))
    assert text != own.text_of("p5")
    assert own.info()["cold_items"] == cold + 1
    assert own.info()["hidden_items"] == 1  # and not hidden


def test_what_is_hidden_is_saved_and_survives_new_texts_removals_and_packing(own, tmp_path):
    own.hide_items(["p250", "p3", "p299"])
    own.update_items(pl.DataFrame({"item_id": ["p3"], "title": ["one"]}))
    assert sorted(own.item_ids(hidden=True)) == ["p250", "p299", "p3"]
    own.remove_items([f"p{row}" for row in range(100, 200)] + ["p299"])  # so many that the shelf is packed
    assert not own._state[1].dead.any()
    own.save(tmp_path / "again")
    other = Recommender.load(tmp_path / "again")
    for one in (own, other):
        assert sorted(one.item_ids(hidden=True)) == ["p250", "p3"]
        assert one.info()["hidden_items"] == 2
        assert len(one.item_ids()) == 197
        assert set(names(one.recommend(one.adapt_user([]), k=300))) == set(one.item_ids())


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_an_index_that_is_built_leaves_hidden_items_out(index, shop, fit):
    made = fit(shop.interactions, shop.items, index=index)
    user = made.adapt_user(["p1"])
    best = names(made.recommend(user, k=5))
    made.hide_items(best[:2])
    assert names(made.recommend(user, k=3)) == best[2:]


def test_all_may_be_hidden_and_what_is_unknown_is_named(own):
    with pytest.raises(UnknownItemError, match=r"1 of the items to hide are not in the catalogue.*'nope'"):
        own.hide_items(["p1", "nope"])
    with pytest.raises(UnknownItemError, match="'nope'"):
        own.show_items(["nope"])
    with pytest.raises(InvalidDataError, match="'p1' is one text"):
        own.hide_items("p1")
    assert own.info()["hidden_items"] == 0
    own.hide_items(own.item_ids())
    assert own.item_ids() == own.recommend(own.adapt_user(["p1"])) == []


# ---- a feed


def feed_of(shop, **texts):
    """The shop's items without the first ten, with other titles where given, and two new ones."""
    columns = [name for name in shop.items.columns if name != "item_id"]
    lone = pl.DataFrame({"item_id": ["n1", "n2", *texts], "title": ["one", "two", *texts.values()]})
    lone = lone.with_columns([pl.lit(None, pl.String).alias(name) for name in columns if name != "title"])
    rest = shop.items.slice(10).filter(~pl.col("item_id").is_in(list(texts)))
    return pl.concat([rest, lone.select(rest.columns)])


@pytest.mark.parametrize("gone", ["hide", "remove"])
def test_a_feed_does_what_its_steps_do(own, shop, encoder, tmp_path, gone):
    first = [f"p{row}" for row in range(10)]
    own.hide_items(["p4", "p20", "p21"])
    own.save(tmp_path / "copy")
    steps = Recommender.load(tmp_path / "copy", encoder=encoder)
    feed = feed_of(shop, p20="three", p30="one")

    done = own.sync_items(feed, gone=gone)

    steps.update_items(feed.filter(pl.col("item_id").is_in(["p20", "p30"])))
    steps.add_items(feed.filter(pl.col("item_id").is_in(["n1", "n2"])))
    steps.show_items(["p20", "p21"])
    steps.hide_items(first) if gone == "hide" else steps.remove_items(first)
    left = {"hidden": 9, "removed": 0} if gone == "hide" else {"hidden": 0, "removed": 10}
    assert done._asdict() == {"added": 2, "updated": 2, "shown": 2} | left
    assert own.info() == steps.info()
    assert sorted(own.item_ids()) == sorted(feed["item_id"]) == sorted(steps.item_ids())
    assert sorted(own.item_ids(hidden=True)) == (sorted(first) if gone == "hide" else [])
    user, same = (one.adapt_user(["p40", "p50"]) for one in (own, steps))
    assert_same(own.recommend(user, k=400), steps.recommend(same, k=400))
    again = own.sync_items(feed, gone=gone)
    assert set(again) == {0}


def test_a_feed_without_new_texts_needs_no_encoder(own, shop, tmp_path):
    own.save(tmp_path / "bare")
    bare = Recommender.load(tmp_path / "bare")  # its own encoder would be another one
    assert bare.sync_items(shop.items.head(200)).hidden == 100
    assert bare.sync_items(shop.items).shown == 100


def test_a_refused_feed_changes_nothing(own, shop):
    before = own.info(), own.item_ids()
    feed = feed_of(shop)
    for wrong, error, message in (
        (feed.drop("brand"), InvalidDataError, "need the column 'brand'"),
        (feed.with_columns(item_id=pl.int_range(pl.len())), InvalidDataError, "item ids of the feed are Int64"),
        (feed.clear(), InvalidDataError, "empty"),
        (feed_of(shop, p30="a text that the encoder does not know"), Exception, "vector"),
    ):
        with pytest.raises(error, match=message):
            own.sync_items(wrong)
        assert (own.info(), own.item_ids()) == before


# ---- who may get what


def of_users(lists):
    """User -> items, best first."""
    return dict(lists.sort("rank").group_by("user_id", maintain_order=True).agg("item_id").iter_rows())


@pytest.mark.parametrize("index", ["auto", "flat"])
@pytest.mark.parametrize("k", [3, 300])
def test_a_table_leaves_out_and_allows_by_user(index, k, shop, fit, fitted):
    made = fitted if index == "auto" else fit(shop.interactions, shop.items, index=index)
    log = shop.interactions.head(300)
    users, rng = [*log["user_id"].unique(maintain_order=True), "x1", "x2"], np.random.default_rng(0)
    pairs = [(user, f"p{row}") for user in [*users[:-1], "somebody"] for row in rng.integers(300, size=30)]
    table = pl.DataFrame(pairs[25:], schema=["user_id", "item_id"], orient="row").sample(
        fraction=1, shuffle=True, seed=1
    )
    named = {user: {item for one, item in pairs[25:] if one == user} for user in users}
    states = {**made.adapt_users(log), "x1": made.adapt_user([]), "x2": made.adapt_user([])}
    everybody = [f"p{row}" for row in range(0, 300, 2)]
    marks = {user: {one.item: one.score for one in made.recommend(state, k=300)} for user, state in states.items()}

    def expected(keep, given=None):
        """Plain loop: what is left of each user's whole list."""
        left = {u: [i for i in names(made.recommend(s, k=300)) if keep(u, i)][:k] for u, s in states.items()}
        return {user: items for user, items in left.items() if items}

    for rules, keep in (
        ({"exclude": table}, lambda u, i: i not in named[u]),
        ({"among": table}, lambda u, i: i in named[u]),
        ({"exclude": table, "among": everybody}, lambda u, i: i not in named[u] and i in everybody),
        ({"exclude": everybody, "among": table}, lambda u, i: i in named[u] and i not in everybody),
        ({"exclude": table, "among": table}, lambda u, i: False),
        ({"exclude": pl.DataFrame({"item_id": everybody})}, lambda u, i: i not in everybody),
    ):
        found = made.recommend_batch(log, k, users=["x1", "x2"], **rules)
        lists, wanted = of_users(found), expected(keep)
        assert {user: len(items) for user, items in lists.items()} == {
            user: len(items) for user, items in wanted.items()
        }
        for user, items in lists.items():  # a product of many users rounds otherwise: equal scores may change places
            np.testing.assert_allclose(
                *([marks[user][item] for item in some] for some in (items, wanted[user])), rtol=1e-4
            )
        assert (found["rank"] == found.select(pl.int_range(pl.len()).over("user_id") + 1).to_series()).all()
    pandas = made.recommend_batch(log, k, users=["x1"], exclude=table.to_pandas())
    assert pandas.equals(made.recommend_batch(log, k, users=["x1"], exclude=table))


def test_tables_by_user_meet_unknown_items_and_no_users(fitted, shop, tmp_path):
    log = shop.interactions.head(40)
    user = log["user_id"][0]
    odd = pl.DataFrame({"user_id": [user, user], "item_id": ["gone", "p9"]})
    odd.write_parquet(tmp_path / "odd.parquet")
    found = fitted.recommend_batch(log, 300, exclude=tmp_path / "odd.parquet")
    assert "p9" not in of_users(found)[user]
    with pytest.raises(UnknownItemError, match=r"1 of the items in `among`.*'gone'"):
        fitted.recommend_batch(log, among=odd)
    assert fitted.recommend_batch(log, among=odd.clear()).height == 0  # nobody occurs: nobody gets anything
    assert fitted.recommend_batch(log, 3, exclude=odd.clear()).equals(fitted.recommend_batch(log, 3))
    assert fitted.recommend_batch(log.clear(), exclude=odd).height == 0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"exclude": pl.DataFrame({"user_id": [1], "item_id": ["p1"]})}, "user ids of `exclude` are Int64.*String"),
        ({"among": pl.DataFrame({"user_id": ["u1"], "item_id": [1]})}, "rows of `among` are Int64"),
        ({"among": pl.DataFrame({"user_id": ["u1"], "item": ["p1"]})}, "rows of `among` need the column 'item_id'"),
        ({"exclude": pl.DataFrame({"user_id": ["u1"], "item_id": [None]})}, "item_id of `exclude` are missing"),
        ({"exclude": "p5"}, "'p5' is one text"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(rules, message, fitted, shop):
    with pytest.raises(InvalidDataError, match=message):
        fitted.recommend_batch(shop.interactions.head(40), **rules)


def test_one_user_takes_lists_alone(fitted):
    table = pl.DataFrame({"user_id": ["u1"], "item_id": ["p1"]}).to_pandas()
    with pytest.raises(InvalidDataError, match="exclude=a DataFrame is no list of ids"):
        fitted.recommend(fitted.adapt_user([]), exclude=table)


def test_many_items_say_the_sum_of_what_each_says(fitted):
    basket = ["p1", "p7", "p33"]
    single = [{one.item: one.score for one in fitted.similar_items(item, k=300)} for item in basket]
    found = fitted.similar_items([*basket, "p1"], k=300)
    assert len(found) == 297
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for item, score in found:
        assert score == pytest.approx(sum(one[item] for one in single), abs=1e-4)
    assert fitted.similar_items(["p1"], k=5) == fitted.similar_items("p1", k=5)
    best = names(found)
    assert names(fitted.similar_items(basket, k=3, exclude=[*best[:2], "unknown"])) == best[2:5]
    assert names(fitted.similar_items(basket, k=9, among=[*best[5:8], "p7"], exclude=best[:6])) == best[6:8]
    with pytest.raises(InvalidDataError, match="name at least one"):
        fitted.similar_items([])
    with pytest.raises(UnknownItemError, match="'nope'"):
        fitted.similar_items(["p1", "nope"])


# ---- less alike, and so many of a group


def picked(scores, sides, k, diversity, group=None, most=1, depth=100):
    """Plain loop after Carbonell and Goldstein: rows of one list out of scored rows; None and -inf are out."""
    ranked = sorted((row for row in scores if scores[row] > -np.inf), key=lambda row: (-scores[row], row))
    low, wanted = scores[ranked[min(depth, len(ranked)) - 1]], depth
    while True:
        pool, chosen = list(ranked[:wanted]), []
        while pool and len(chosen) < k:
            best = None
            for row in pool:
                if group and group.get(row) is not None and sum(group.get(o) == group[row] for o in chosen) >= most:
                    continue
                relevance = (scores[row] - low) / ((scores[ranked[0]] - low) or 1.0)
                near = max((float(sides[row] @ sides[other]) for other in chosen), default=0.0)
                worth = (1 - diversity) * relevance - diversity * near
                if best is None or worth > best[0] + 1e-9:
                    best = worth, row
            if best is None:
                break
            chosen.append(best[1])
            pool.remove(best[1])
        if len(chosen) == k or wanted >= len(ranked):
            return chosen
        wanted *= 4


def sides_of(made):
    """Text vectors of length 1, by row."""
    text = made._state[1].space.text.support.double().numpy()
    return text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize("diversity", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("capped", [False, True])
def test_a_list_is_picked_as_a_plain_loop_picks_it(diversity, capped, fitted, shop):
    if not diversity and not capped:
        return
    sides, log = sides_of(fitted), shop.interactions.head(150)
    group = dict(shop.items.select("item_id", "brand").iter_rows()) if capped else None  # ten brands
    most, k = 2, 15
    rules = {"diversity": diversity, **({"groups": group, "per_group": most} if capped else {})}
    lists = of_users(fitted.recommend_batch(log, k, **rules))
    by_row = group and {int(item[1:]): brand for item, brand in group.items()}
    wider = []
    for user, state in fitted.adapt_users(log).items():
        whole = {int(one.item[1:]): one.score for one in fitted.recommend(state, k=300)}
        found = fitted.recommend(state, k, **rules)
        assert names(found) == [f"p{row}" for row in picked(whole, sides, k, diversity, by_row, most, depth=150)]
        assert lists[user] == names(found)
        assert all(one.score == pytest.approx(whole[int(one.item[1:])], abs=1e-4) for one in found)
        wider.append(spread_of(found, sides) - spread_of(fitted.recommend(state, k), sides))
    assert diversity < 0.5 or np.mean(wider) > 0.01


def spread_of(found, sides):
    rows = [int(one.item[1:]) for one in found]
    return np.mean([1 - sides[a] @ sides[b] for a in rows for b in rows if a < b])


@pytest.mark.parametrize("at_once", [1 << 24, 700])  # candidates of all users in one search, or of one or two users
def test_candidates_widen_until_k_are_found_or_nothing_is_left(at_once, fitted, shop, monkeypatch):
    monkeypatch.setattr("mecold.space.rerank._CANDIDATES_AT_ONCE", at_once)
    log = shop.interactions.head(100)
    order = names(fitted.recommend(fitted.adapt_user([]), k=300))
    one_big = dict.fromkeys(order[:290], "big")  # the first hundred candidates, and 190 more, are one group
    for k in (5, 11, 30):
        found = names(fitted.recommend(fitted.adapt_user([]), k, groups=one_big))
        assert found == [order[0], *order[290:]][:k]
        lists = of_users(fitted.recommend_batch(log, k, users=["x"], groups=one_big))
        assert lists["x"] == found
        for user, state in fitted.adapt_users(log).items():
            whole = names(fitted.recommend(state, k=300))
            free = [i for place, i in enumerate(whole) if i not in one_big or one_big.keys().isdisjoint(whole[:place])]
            assert lists[user] == free[:k]
    among = order[280:]
    assert names(fitted.recommend(fitted.adapt_user([]), 30, groups=one_big, among=among)) == [among[0], *order[290:]]
    assert fitted.recommend(fitted.adapt_user([]), groups=one_big, among=[]) == []


@pytest.mark.parametrize("index", ["auto", "hnsw"])
def test_rules_go_together(index, shop, fit, fitted):
    made = fitted if index == "auto" else fit(shop.interactions, shop.items, index=index)
    log = shop.interactions.head(100)
    allowed = pl.DataFrame(
        {"user_id": log["user_id"].unique(maintain_order=True)[0], "item_id": shop.items["item_id"][:90]}
    )
    table = shop.items.select("item_id", "brand")
    found = made.recommend_batch(log, 30, among=allowed, groups=table, per_group=2, diversity=0.2)
    assert found["user_id"].unique().to_list() == [allowed["user_id"][0]]
    brands = found.join(table, on="item_id")["brand"].value_counts()
    assert brands["count"].max() == 2
    assert found.height == 20  # ten brands, and so all that is left
    assert found["rank"].to_list() == list(range(1, 21))


def test_a_mapping_and_a_table_say_the_same_and_no_group_is_no_cap(fitted, shop):
    user, rng = fitted.adapt_user(["p1"]), np.random.default_rng(0)
    numbers = [None if row % 3 == 0 else int(rng.integers(4)) for row in range(300)]
    table = pl.DataFrame({"item_id": [f"p{row}" for row in range(300)], "author": numbers})
    found = fitted.recommend(user, 120, groups=table, per_group=3)
    assert found == fitted.recommend(user, 120, groups=dict(table.iter_rows()), per_group=3)
    assert found == fitted.recommend(user, 120, groups=table.to_pandas(), per_group=3)  # null has become NaN
    assert found == fitted.recommend(user, 120, groups=table.drop_nulls(), per_group=3)
    more = pl.concat([table, pl.DataFrame({"item_id": ["elsewhere", "p1"], "author": [1, numbers[1]]})])
    assert found == fitted.recommend(user, 120, groups=more, per_group=3)
    assert len(found) == 100 + 4 * 3


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"diversity": 1.5}, "diversity=1.5 must be a number between 0"),
        ({"diversity": float("nan")}, "diversity=nan"),
        ({"per_group": 2}, "per_group=2 needs `groups`"),
        ({"groups": {"p1": "a"}, "per_group": 0}, "per_group=0 must be a positive"),
        ({"groups": {1: "a"}}, "items such as 1; the ids of the catalogue are strings"),
        ({"groups": {f"p{row}": ["a"] for row in range(300)}}, r"The group of 'p\d+' is \['a'\]"),
        ({"groups": 7}, "`groups` is a int"),
        ({"groups": pl.DataFrame({"item_id": ["p1"]})}, "one more column; beside it they have none"),
        ({"groups": pl.DataFrame({"item_id": ["p1"], "a": [1], "b": [2]})}, "beside it they have 'a', 'b'. Select one"),
        ({"groups": pl.DataFrame({"item_id": ["p1"], "a": [[1]]})}, "'a' holds List"),
        ({"groups": pl.DataFrame({"item_id": [1], "a": [1]})}, "item ids of the groups are Int64"),
        (
            {"groups": pl.DataFrame({"item_id": ["p1", "p1"], "a": [1, 2]})},
            "1 items stand in more than one group: 'p1'",
        ),
    ],
)
def test_groups_and_numbers_that_cannot_be_used_are_named(rules, message, fitted, shop):
    with pytest.raises(InvalidDataError, match=message):
        fitted.recommend(fitted.adapt_user(["p1"]), **rules)
    with pytest.raises(InvalidDataError, match=message):
        fitted.recommend_batch(shop.interactions.head(30), **rules)


def test_items_without_text_are_like_nothing_and_equal_scores_keep_their_order():
    from mecold.space.channel import Channel, Traits
    from mecold.space.index import Ranked
    from mecold.space.lists import Lists
    from mecold.space.rerank import Rerank, spread
    from mecold.space.space import ItemSpace

    text = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
    channel = Channel.of("text", Traits(textual=True), text, text)
    space = ItemSpace({"text": channel}, Lists.none(4, 1, text), torch.ones(4), torch.zeros(4, dtype=torch.bool))
    one = Ranked(np.array([[0, 1, 2, 3]]), np.full((1, 4), 5.0, np.float32), np.array([[True, True, True, False]]))
    found = Rerank(0.5).best(space, 4, lambda some, depth: one)
    assert found.of(0)[0].tolist() == [0, 2, 1]  # 1 is the same as 0, 2 is like nothing
    assert spread(space, found).tolist() == pytest.approx([2 / 3])  # pairs: 1, 0, 1
    nothing = Ranked(np.empty((2, 0), np.int64), np.empty((2, 0), np.float32), np.empty((2, 0), bool))
    assert Rerank(0.5).best(space, 4, lambda some, depth: nothing).valid.shape == (2, 0)


def test_one_table_of_exclusions_serves_all_batches(fitted, shop):
    log = shop.interactions.filter(pl.col("user_id") == "u1")
    others = pl.DataFrame({"user_id": ["u2"], "item_id": ["p5"]})
    assert fitted.recommend_batch(log, 3, exclude=others).height == 3  # no word: it is for other users
    with pytest.warns(DataWarning, match="None of the items in `exclude` is in the catalogue"):
        fitted.recommend_batch(log, 3, exclude=pl.DataFrame({"user_id": ["u1"], "item_id": ["typo"]}))


def test_a_feed_of_digits_meets_a_catalogue_of_texts(fit, shop, encoder, tmp_path):
    digits = shop.items.with_columns(pl.col("item_id").str.slice(1))
    log = shop.interactions.with_columns(pl.col("item_id").str.slice(1))
    made = fit(log, digits)
    digits.head(250).write_csv(tmp_path / "feed.csv")
    assert made.sync_items(tmp_path / "feed.csv").hidden == 50
