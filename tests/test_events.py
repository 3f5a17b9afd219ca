"""Kinds of events: one order of strength, one rule for repeats, goals that are predicted, strengths that are learned."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from mecold import Catalog, DataWarning, Interaction, InvalidDataError, MetaConfig, Recommender
from mecold.data.events import EventRule, Events
from mecold.data.history import read_history
from mecold.data.interactions import Interactions
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import split
from mecold.meta.episodes import cut
from tests.conftest import SMALL

ITEMS = Catalog.read(pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["x", "y", "z"]}))
ROWS = [
    ("u", "a", 1, "buy"),
    ("u", "b", 2, "view"),
    ("u", "a", 3, "view"),
    ("v", "c", 1, "view"),
    ("v", "b", 2, "view"),
]


def frame_of(rows):
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row")


def test_the_order_of_strength_goals_then_given_strengths_then_the_rarest():
    column = pl.Series(["view"] * 5 + ["cart"] * 3 + ["buy"] * 3 + ["skip"])
    assert EventRule().named(column) == Events(("skip", "buy", "cart", "view"), 0)
    assert EventRule(("buy",)).named(column) == Events(("buy", "skip", "cart", "view"), 1)
    given = {"view": 0.1, "cart": 0.5, "buy": 1.0, "skip": 0.05}
    assert EventRule((), given).named(column).names == ("buy", "cart", "view", "skip")


@pytest.mark.parametrize(
    ("rule", "values", "message"),
    [
        (EventRule(("purchase",)), ["view", "buy"], r"predict=\.\.\.\) names 'purchase'; the events are"),
        (EventRule((), {"view": 1.0}), ["view", "buy"], "gives no strength to 'buy'"),
        (EventRule((), {"view": 1.0, "play": 1.0}), ["view"], r"events=\.\.\.\) names 'play'"),
        (EventRule(), [f"kind {n}" for n in range(40)], "has 40 kinds, more than 32"),
    ],
)
def test_rules_that_do_not_fit_the_log_are_refused(rule, values, message):
    with pytest.raises(InvalidDataError, match=message):
        rule.named(pl.Series(values))


def test_settings_of_events_are_checked():
    with pytest.raises(InvalidDataError, match=r"'skip': -1.0.*label of -1"):
        MetaConfig(events={"buy": 1.0, "skip": -1.0})


def test_a_repeat_is_the_strongest_and_the_latest_in_a_frame_and_in_a_list():
    with pytest.warns(DataWarning, match="1 repeats .* the last counts, as the strongest event"):
        log = Interactions.read(frame_of(ROWS), ITEMS, events=EventRule(("buy",)))
    own = slice(*log.offsets[:2])
    assert [ITEMS.id_of(row) for row in log.items[own].tolist()] == ["b", "a"]  # looked at again last
    assert log.kinds[own].tolist() == [1, 0]  # and bought all the same
    assert log.goal.tolist() == [False, True, False, False]
    assert log.notes[-1] == "Events, the strongest first: 'buy', 'view'. Predicted: 'buy'."
    rows = [Interaction(item, time=float(time), event=event) for user, item, time, event in ROWS if user == "u"]
    found, *_ = read_history(rows, ITEMS, "raise", log.events)
    whole = log.histories(np.ones(4, np.float32))
    for name in ("rows", "kinds", "repeats", "since"):
        assert torch.equal(getattr(found, name), getattr(whole, name)[:1]), name


def test_kinds_that_a_model_does_not_know_are_refused_and_no_kind_is_the_strongest():
    known = Events(("buy", "view"), 1)
    with pytest.raises(InvalidDataError, match="knows no events 'play'; it was fitted with 'buy', 'view'"):
        Interactions.read(frame_of([("u", "a", 1, "play")]), ITEMS, events=known)
    with pytest.raises(InvalidDataError, match="knows no events 'play'"):
        read_history([Interaction("a", event="play")], ITEMS, "raise", known)
    found, *_ = read_history([Interaction("a", event="view"), "b"], ITEMS, "raise", known)
    assert found.kinds.tolist() == [[1, 0]]
    with pytest.raises(InvalidDataError, match="event of the interactions are missing"):
        Interactions.read(frame_of([("u", "a", 1, "buy"), ("u", "b", 2, None)]), ITEMS)


def test_episodes_ask_for_goals_alone_however_far_apart_they_are():
    rows = [("u", f"i{n}", n, "buy" if n in (0, 3, 7) else "view") for n in range(9)]
    items = Catalog.read(pl.DataFrame({"item_id": [f"i{n}" for n in range(9)], "title": ["x"] * 9}))
    log = Interactions.read(frame_of(rows), items, events=EventRule(("buy",)))
    episodes = cut(log.histories(np.ones(9, np.float32)), torch.tensor([2]), 2)
    assert episodes.support.rows.tolist() == [[0, 1]]
    assert episodes.query[episodes.query_mask].tolist() == [3, 7]


def with_views(shop, *, honest):
    """The shop's log as purchases; before each a view: of the item that will be bought next, or of any."""
    rng = np.random.default_rng(0)
    log = shop.interactions.sort("user_id", "timestamp")
    coming = pl.col("item_id").shift(-1).over("user_id").fill_null(pl.col("item_id"))
    other = pl.Series(rng.choice(shop.items["item_id"].to_numpy(), log.height))
    views = log.with_columns((coming if honest else other).alias("item_id"), timestamp=pl.col("timestamp") - 1)
    both = [views.with_columns(event=pl.lit("view")), log.with_columns(event=pl.lit("buy"))]
    return pl.concat(both).sort("user_id", "timestamp")


@pytest.fixture(scope="module")
def models(shop, encoder):
    found = {}
    for honest in (True, False):
        made = Recommender(encoder, config=replace(SMALL, predict=("buy",)), rng=0, device="cpu")
        with pytest.warns(DataWarning, match="repeats"):
            made.fit_meta(with_views(shop, honest=honest), shop.items)
        found[honest] = made
    return found


def test_what_a_view_says_is_learned(models):
    honest, any_ = (models[kind]._state[0].head.prior.events.mean() for kind in (True, False))
    assert any_ < honest


def test_events_are_read_alike_through_every_door_and_kept_with_the_model(models, shop, tmp_path):
    made = models[True]
    log = with_views(shop, honest=True).filter(pl.col("user_id").is_in(["u1", "u2", "u3"]))
    with pytest.warns(DataWarning, match="repeats"):
        states = made.adapt_users(log)
    made.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model")
    assert again.info()["events"] == ["buy", "view"]
    for user, state in states.items():
        rows = [
            Interaction(item, time=float(time), event=event)
            for item, time, event in log.filter(pl.col("user_id") == user)
            .select("item_id", "timestamp", "event")
            .iter_rows()
        ]
        assert made.adapt_user(rows) == state == again.adapt_user(rows)
        assert made.adapt_user([row._replace(event="buy") for row in rows]) != state


def test_what_views_add_is_explained(models):
    rows = [Interaction("p1", event="view"), Interaction("p2"), Interaction("p3", label=-1.0, event="view")]
    found = models[True].explain(rows, "p9")
    assert found.base + sum(part for _, part in found.contributions) == pytest.approx(found.score, abs=1e-3)


def test_given_strengths_are_taken_as_they_are(shop, encoder):
    config = replace(
        SMALL, predict=("buy",), events={"buy": 2.0, "view": 0.5}, training=replace(SMALL.training, epochs=1)
    )
    made = Recommender(encoder, config=config, rng=0, device="cpu")
    with pytest.warns(DataWarning, match="repeats"):
        made.fit_meta(with_views(shop, honest=True), shop.items)
    assert made._state[0].head.prior.events.unique().tolist() == [0.25]


def test_an_evaluation_asks_for_goals_and_baselines_count_them(shop, encoder):
    with pytest.warns(DataWarning, match="repeats"):
        data = Dataset.read(with_views(shop, honest=False), shop.items, encoder=encoder, predict=["buy"])
    parts = split(data, "user", 0)
    bought = {
        (user, item)
        for user, item, event in with_views(shop, honest=False).select("user_id", "item_id", "event").iter_rows()
        if event == "buy"
    }
    tasks = parts.tasks("test", 3)
    assert all(
        (user, data.catalog.id_of(int(row))) in bought
        for user, rows in zip(tasks.users, tasks.queries, strict=True)
        for row in rows
    )
    assert {kind for kinds in tasks.kinds for kind in kinds.tolist()} == {0, 1}
    with pytest.raises(InvalidDataError, match="needs a column `event`"):
        Dataset.read(shop.interactions, shop.items, encoder=encoder, predict=["buy"])


def test_a_frame_without_events_counts_as_the_strongest_like_a_list(models, shop):
    made = models[True]
    plain = pl.DataFrame({"user_id": ["u", "u", "u"], "item_id": ["p1", "p2", "p1"], "position": [0, 1, 2]})
    with pytest.warns(DataWarning, match="repeats"):
        states = made.adapt_users(plain)
    assert states["u"] == made.adapt_user(["p1", "p2", "p1"])
    with pytest.raises(InvalidDataError, match="needs a column `event`"):
        made.fit_meta(shop.interactions, shop.items)


def test_a_state_is_the_same_in_any_company(models):
    one = [("u", "p1", 1, "view"), ("u", "p2", 2, "buy")]
    other = [("v", "p1", 1, "buy"), ("v", "p3", 2, "buy"), ("v", "p1", 3, "buy")]
    alone = models[True].adapt_users(frame_of(one))["u"]
    with pytest.warns(DataWarning, match="repeats"):
        assert models[True].adapt_users(frame_of(one + other))["u"] == alone
    rows = [Interaction(item, time=float(time), event=event) for _, item, time, event in one]
    assert models[True].adapt_user(rows) == alone
    assert alone.again[0] == 0 or not models[True]._state[0].repeats  # it was looked at, and never bought


def test_unknown_items_are_seen_in_the_same_order_through_both_doors(fitted):
    rows = [("u", "zz", 3.0), ("u", "p1", 2.0), ("u", "yy", 1.0)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    with pytest.warns(DataWarning, match="unknown"):
        state = fitted.adapt_users(frame, on_unknown="drop")["u"]
    assert state == fitted.adapt_user([Interaction(i, time=t) for _, i, t in rows], on_unknown="drop")
    assert state.seen == ("p1", "yy", "zz")
