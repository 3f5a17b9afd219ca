"""What is known of users beside what they did: every value is a group, and what groups like is counted and shrunk."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from mecold import Catalog, Interaction, InvalidDataError, Recommender
from mecold.data.attributes import Attributes, of_these, one_user, read_attributes
from mecold.data.interactions import Interactions
from mecold.space.channels.groups import spread_of, vectors_of
from tests.conftest import SMALL


def letters(texts):
    """Vectors of texts by their first letter."""
    return np.eye(128, dtype=np.float32)[[ord(text[0].lower()) % 128 for text in texts]]


def test_values_become_groups():
    frame = pl.DataFrame(
        {
            "user_id": range(200),
            "age": np.arange(200) / 4,
            "job": [f"j{n % 3}" for n in range(200)],
            "zip": [n % 5 for n in range(200)],
            "about": [f"{'ab'[n % 2]} text {n}" for n in range(200)],
        }
    )
    known = Attributes.of([frame], letters)
    assert [(column.name, column.kind, column.size) for column in known.columns][:3] == [
        ("age", "number", 8), ("job", "name", 3), ("zip", "name", 5),
    ]  # fmt: skip
    assert known.columns[3].kind == "text"
    groups = known.groups(frame, letters)
    assert groups.min(0).tolist()[:3] == known.starts[:3]
    assert np.bincount(groups[:, 0]).tolist() == [25] * 8
    assert len(set(groups[::2, 3]) & set(groups[1::2, 3])) == 0  # texts that are unlike are in different groups
    one = known.groups(one_user({"age": 1e9, "job": "j1", "zip": None}), letters)
    assert one.tolist() == [[7, 9, -1, -1]]
    assert known.groups(one_user({"job": "never seen"}), letters).tolist() == [[-1] * 4]
    assert known.groups(one_user({}), letters).tolist() == [[-1] * 4]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"city": "x"}, "no attributes 'city'; it was fitted with 'age', 'job'"),
        ({"age": "old"}, "'age' holds String; in the fit it was a number"),
        ({"job": ["a"]}, "'job' is a list"),
    ],
)
def test_attributes_that_a_model_cannot_read_are_refused(values, message):
    frame = pl.DataFrame({"user_id": range(90), "age": np.arange(90.0), "job": ["a", "b", "c"] * 30})
    known = Attributes.of([frame], letters)
    with pytest.raises(InvalidDataError, match=message):
        known.groups(one_user(values), letters)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"age": [1]}, "need the column 'user_id'"),
        ({"user_id": ["a", "a"], "age": [1, 2]}, "1 users stand more than once"),
        ({"user_id": ["a"]}, "no column beside"),
        ({"user_id": ["a"], "tags": [["x"]]}, "'tags' holds List"),
    ],
)
def test_frames_of_attributes_are_checked(frame, message):
    with pytest.raises(InvalidDataError, match=message):
        read_attributes(pl.DataFrame(frame))


def test_users_who_are_not_in_the_frame_are_unknown():
    frame = read_attributes(pl.DataFrame({"user_id": ["a", "b"], "age": [1.5, None], "job": ["", "x"]}))
    found = of_these(frame, pl.Series("user_id", ["b", "z", "a"]))
    assert found.rows() == [("b", None, "x"), ("z", None, None), ("a", 1.5, None)]
    with pytest.raises(InvalidDataError, match=r"user ids of the attributes are String, those of the histories Int64"):
        of_these(frame, pl.Series("user_id", [1]))


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.5])
def test_the_spread_of_rates_is_measured_and_chance_is_none(spread):
    rng = np.random.default_rng(0)
    rates = rng.gamma(1 / spread, spread, (2000, 5)) if spread else np.ones((2000, 5))
    counts = torch.from_numpy(rng.poisson(20 * rates).astype(np.float32))
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
    # of five groups that share an item's total, four vary freely
    assert spread_of(counts, expected) == pytest.approx(0.8 * spread, rel=0.15, abs=0.004)
    found = vectors_of(counts)
    assert found.abs().mean() < (0.02 if spread == 0 else 1.0)


def of_taste(shop):
    """Users by what they have most of: a group of its own per category, an age that goes with it, and noise."""
    owners = shop.interactions.join(shop.items.select("item_id", "category"), on="item_id")
    most = owners.group_by("user_id").agg(pl.col("category").mode().sort().first().alias("club")).sort("user_id")
    place = most["club"].rank("dense").cast(pl.Float64)
    rng = np.random.default_rng(0)
    return most.with_columns(
        age=20 + 5 * place + pl.Series(rng.random(len(most))), noise=pl.Series(rng.random(len(most)))
    )


@pytest.fixture(scope="module")
def knowing(shop, encoder):
    made = Recommender(encoder, config=SMALL, rng=0, device="cpu")
    made.fit_meta(shop.interactions, shop.items, attributes=of_taste(shop))
    return made


def test_zero_shot_lists_follow_the_group_and_fade(knowing, shop):
    category = dict(shop.items.select("item_id", "category").iter_rows())
    clubs = of_taste(shop)["club"].unique().sort().to_list()
    shares = {}
    for club in clubs:
        told, silent = (knowing.recommend(knowing.adapt_user([], attributes=a), 20) for a in ({"club": club}, None))
        shares[club] = [np.mean([category[one.item] == club for one in some]) for some in (told, silent)]
    gain = np.mean([told - silent for told, silent in shares.values()])
    assert gain > 0.2, shares

    def apart(history):
        told = knowing.recommend(knowing.adapt_user(history, attributes={"club": clubs[0]}), 20)
        return len(
            {one.item for one in told} ^ {one.item for one in knowing.recommend(knowing.adapt_user(history), 20)}
        )

    users = [shop.interactions.filter(pl.col("user_id") == f"u{n}")["item_id"].to_list() for n in range(1, 9)]
    assert np.mean([apart(history) for history in users]) < apart([])


def test_attributes_are_read_alike_through_every_door_and_kept_with_the_model(knowing, shop, tmp_path):
    known = of_taste(shop)
    log = shop.interactions.filter(pl.col("user_id").is_in(["u1", "u2"])).sort("user_id", "timestamp")
    states = knowing.adapt_users(log, attributes=known)
    knowing.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model")
    assert again.info()["attributes"] == {"club": "name", "age": "number", "noise": "number"}
    lists = knowing.recommend_batch(log, 5, users=["u3", "u4", "nobody"], attributes=known)
    for user in ("u1", "u2", "u3", "u4", "nobody"):
        own = log.filter(pl.col("user_id") == user)
        history = [Interaction(item, time=float(time)) for item, time in own.select("item_id", "timestamp").iter_rows()]
        rows = known.filter(pl.col("user_id") == user).drop("user_id").rows(named=True)
        one = again.adapt_user(history, attributes=rows[0] if rows else None)
        assert user not in states or one == states[user]
        assert [r.item for r in again.recommend(one, 5)] == lists.filter(pl.col("user_id") == user)["item_id"].to_list()
    assert knowing.adapt_user([], attributes={}) == knowing.adapt_user([])
    with pytest.raises(InvalidDataError, match="no attributes 'shoe_size'"):
        knowing.adapt_user([], attributes={"shoe_size": 43})


def test_a_model_without_attributes_says_so(fitted):
    with pytest.raises(InvalidDataError, match="fitted with none"):
        fitted.adapt_user(["p1"], attributes={"age": 3})


def by_weekday(shop):
    """The shop's log, as if half of it had been bought on a Sunday: one half of the categories, all of it."""
    category = dict(shop.items.select("item_id", "category").iter_rows())
    names = sorted(set(category.values()))
    days = ["sunday" if names.index(category[item]) % 2 else "monday" for item in shop.interactions["item_id"]]
    return shop.interactions.with_columns(pl.Series("day", days)), {
        n: "sunday" if i % 2 else "monday" for i, n in enumerate(names)
    }


def test_the_moment_is_an_attribute_whose_value_changes(shop, encoder, tmp_path):
    log, day_of = by_weekday(shop)
    category = dict(shop.items.select("item_id", "category").iter_rows())
    made = Recommender(encoder, config=SMALL, rng=0, device="cpu")
    with pytest.raises(InvalidDataError, match="need the column 'weekday'"):
        made.fit_meta(log, shop.items, context=["weekday"])
    with pytest.raises(InvalidDataError, match="'day' is an attribute of users and one of moments"):
        made.fit_meta(log, shop.items, context=["day"], attributes=pl.DataFrame({"user_id": ["u1"], "day": ["x"]}))
    made.fit_meta(log, shop.items, context=["day"])
    for history in ([], ["p1", "p2", "p3"]):
        shares = [
            np.mean([day_of[category[one.item]] == day for one in made.recommend(made.adapt_user(history, attributes=now), 20)])
            for day in ("sunday", "monday")
            for now in ({"day": day}, None)
        ]  # fmt: skip
        assert shares[0] > shares[1], shares
        assert shares[2] > shares[3], shares
    made.save(tmp_path / "model")
    assert Recommender.load(tmp_path / "model").info()["attributes"] == {"day": "name"}


def test_names_are_the_same_in_any_type_of_column():
    frame = pl.DataFrame({"user_id": range(4), "code": [12345678, 12345679] * 2, "member": [True, False] * 2})
    known = Attributes.of([read_attributes(frame)], letters)
    expected = known.groups(read_attributes(frame), letters).tolist()
    other = pl.DataFrame({"user_id": range(4), "code": [12345678.0, 12345679.0] * 2, "member": ["True", "False"] * 2})
    assert known.groups(read_attributes(other), letters).tolist() == expected
    prices = pl.DataFrame({"user_id": range(99), "price": [f"{n}.50" for n in range(99)]}).cast(
        {"price": pl.Decimal(9, 2)}
    )
    assert Attributes.of([read_attributes(prices)], letters).columns[0].kind == "number"


def test_nobody_and_nothing_are_no_error():
    frame = read_attributes(pl.DataFrame({"user_id": ["a"], "age": [1.5]}))
    assert of_these(frame, pl.Series("user_id", [], dtype=pl.Int64)).shape == (0, 2)
    assert of_these(frame.clear(), pl.Series("user_id", [1, 2])).rows() == [(1, None), (2, None)]


def test_the_fingerprint_of_a_model_does_not_hang_on_how_numbers_are_printed(knowing):
    model = knowing._state[0]
    with np.printoptions(precision=2):
        assert replace(model).fingerprint == model.fingerprint
    edges = replace(model.attributes.columns[1], edges=model.attributes.columns[1].edges + 1e-9)
    assert replace(model, attributes=Attributes((model.attributes.columns[0], edges))).fingerprint != model.fingerprint


def test_numbers_of_a_csv_log_are_numbers_in_the_context_too(tmp_path):
    catalog = Catalog.read(pl.DataFrame({"item_id": ["a"], "title": ["x"]}))
    (tmp_path / "log.csv").write_text("user_id,item_id,heat,day\nu,a,21.5,mo\n")
    found = Interactions.read(tmp_path / "log.csv", catalog, context=["heat", "day"])
    assert found.context.rows() == [(21.5, "mo")]
