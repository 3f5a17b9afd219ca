"""What comes again: counted alike from a list and a frame, learned where the log shows it, and let back when asked for."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mecold import Catalog, DataWarning, Recommender
from mecold.data.history import read_history
from mecold.data.interactions import Interactions
from mecold.meta.again import histories_of
from tests.conftest import SMALL

IDS = [f"i{n}" for n in range(6)]
ITEMS = Catalog.read(pl.DataFrame({"item_id": IDS, "title": IDS}))


@pytest.mark.filterwarnings("ignore::mecold.DataWarning")
@given(st.lists(st.sampled_from(range(6)), min_size=1, max_size=12))
def test_repeats_are_counted_alike_in_a_list_in_a_frame_and_by_hand(rows):
    distinct = list(dict.fromkeys(rows))
    expected = [rows.count(item) for item in distinct]
    since = [rows[::-1].index(item) for item in distinct]
    frame = pl.DataFrame(
        {"user_id": ["u"] * len(rows), "item_id": [IDS[r] for r in rows], "position": range(len(rows))}
    )
    log = Interactions.read(frame, ITEMS)
    whole = log.histories(np.ones(len(log.items), np.float32))
    one, *_ = read_history([IDS[r] for r in rows], ITEMS, "raise")
    learned = histories_of([np.array(rows)])
    for found in (whole, one, learned):
        assert found.rows.tolist() == [distinct]
        if len(distinct) < len(rows):
            assert found.repeats.tolist() == [expected]
            assert found.since.tolist() == [since]
    if len(distinct) < len(rows):
        assert log.again.items.tolist() == rows
    else:
        assert log.again is log.repeats is one.repeats is None


def shopping(shop, *, again):
    """The shop's log, in which every third purchase is what was bought before it, once more; or none."""
    log = shop.interactions.sort("user_id", "timestamp")
    if not again:
        return log
    once_more = log.with_columns(timestamp=pl.col("timestamp") + 10**6)
    return pl.concat([log, once_more.filter(pl.int_range(pl.len()) % 3 == 0)]).sort("user_id", "timestamp")


@pytest.fixture(scope="module")
def learned(shop, encoder):
    made = Recommender(encoder, config=SMALL, rng=0, device="cpu")
    with pytest.warns(DataWarning, match="repeats"):
        made.fit_meta(shopping(shop, again=True), shop.items)
    return made


def test_nothing_is_learned_where_nothing_comes_again(fitted):
    assert not fitted._state[0].head.gains.again.any()
    user = fitted.adapt_user(["p1", "p2", "p1"])
    assert not user.again.any()
    found = fitted.recommend(user, 300, include_seen=True)
    assert len(found) == 300
    wanted = [one.item for one in found]
    assert fitted.scores(user, wanted) == pytest.approx([one.score for one in found], rel=1e-4, abs=1e-4)


def test_what_came_again_in_the_log_comes_back_in_the_lists(learned, shop):
    log = shopping(shop, again=True)
    twice = log.group_by("user_id", "item_id").len().filter(pl.col("len") > 1)
    users = twice["user_id"].unique().sort().head(50)
    with pytest.warns(DataWarning, match="repeats"):
        lists = learned.recommend_batch(log.filter(pl.col("user_id").is_in(users.implode())), 10, include_seen=True)
    pairs = set(log.select("user_id", "item_id").iter_rows())
    share = np.mean([pair in pairs for pair in lists.select("user_id", "item_id").iter_rows()])
    assert 0.02 < share < 0.98  # some of both
    assert lists.group_by("user_id").len()["len"].unique().to_list() == [10]


def test_lists_with_what_was_seen_are_the_same_for_one_user_and_in_a_batch(learned, shop):
    log = shopping(shop, again=True).filter(pl.col("user_id").is_in(["u1", "u2", "u3"]))
    seen = log.filter(pl.col("user_id") == "u1")["item_id"].to_list()
    limits = [{}, {"exclude": seen[:2]}, {"among": [*seen[:3], "p5", "p6"]}, {"diversity": 0.3}]
    with pytest.warns(DataWarning, match="repeats"):
        states = learned.adapt_users(log)
    for limit in limits:
        with pytest.warns(DataWarning, match="repeats"):
            lists = learned.recommend_batch(log, 12, include_seen=True, **limit)
        for user, state in states.items():
            found = learned.recommend(state, 12, include_seen=True, **limit)
            assert [one.item for one in found] == lists.filter(pl.col("user_id") == user)["item_id"].to_list()
    listed, once = (learned.recommend(states["u1"], 9, include_seen=True, among=a) for a in (seen, iter(seen)))
    assert listed == once
    assert set(seen[:2]).isdisjoint(
        one.item for one in learned.recommend(states["u1"], 300, include_seen=True, exclude=seen[:2])
    )


def test_what_is_hidden_or_gone_does_not_come_back(learned):
    user = learned.adapt_user(["p1", "p1", "p2"])
    learned.hide_items(["p1"])
    try:
        assert "p1" not in [one.item for one in learned.recommend(user, 300, include_seen=True)]
    finally:
        learned.show_items(["p1"])
    assert "p1" in [one.item for one in learned.recommend(user, 300, include_seen=True)]


def test_a_state_keeps_what_was_learned(learned, tmp_path):
    user = learned.adapt_user(["p1", "p2", "p1", "unknown"], on_unknown="drop")
    assert user.again[:2].all()
    assert user.again[2] == 0
    assert type(user).from_json(user.to_json()) == user
    learned.save(tmp_path / "model")
    assert torch.equal(
        Recommender.load(tmp_path / "model")._state[0].head.gains.again, learned._state[0].head.gains.again
    )


def test_repeats_without_an_order_teach_nothing():
    with pytest.warns(DataWarning, match="repeats"):
        log = Interactions.read(pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["i1", "i2", "i1"]}), ITEMS)
    assert log.again is log.repeats is None


def test_many_items_that_may_come_back_are_scored_alike(learned):
    items = [f"p{n}" for n in range(150)]
    user = learned.adapt_user(items)
    found = {one.item: one.score for one in learned.recommend(user, 300, include_seen=True)}
    again = dict(zip(user.seen, user.again.tolist(), strict=True))
    scores = dict(zip(items, learned.scores(user, items).tolist(), strict=True))
    assert len(found) == 300
    for item in items:
        assert found[item] == pytest.approx(scores[item] + again[item], rel=1e-4, abs=1e-3)
