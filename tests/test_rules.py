"""What a shop decides beside the ranking: what is hidden, what a feed says, who may get what, how alike a list may be."""

import numpy as np
import polars as pl
import pytest

from mecold import InvalidDataError, Recommender, UnknownItemError
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
