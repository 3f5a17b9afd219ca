"""What users will say of items: the closed form against numpy, planted levels and tastes found again, honest intervals."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from mecold import Interaction, InvalidDataError, Recommender, UnknownItemError, UserState
from mecold.data.catalog import Catalog
from mecold.data.interactions import Interactions
from mecold.heads.inner import posterior, solve
from mecold.heads.ratings import RatingHead
from mecold.meta.ratings import learn_ratings
from tests.conftest import SMALL, bitwise, word_vectors

USERS, ITEMS, EACH, KINDS = 500, 150, 24, 6
NOISE = 0.5
WORDS = ["tent", "lamp", "stove", "rope", "boot", "map"]


class World:
    """Ratings with planted levels of users and items, and a taste for one of two halves of the kinds; the truth is kept."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.kind = np.arange(ITEMS) % KINDS
        by_kind = np.linspace(-0.6, 0.6, KINDS)
        self.item = by_kind[self.kind] + 0.3 * rng.normal(size=ITEMS)
        self.user = 0.6 * rng.normal(size=USERS)
        self.taste = 0.6 * rng.normal(size=USERS)
        self.half = np.where(self.kind < KINDS / 2, 1.0, -1.0)
        self.truth = 3.0 + self.user[:, None] + self.item + self.taste[:, None] * self.half
        self.texts = [f"{WORDS[kind]} {WORDS[kind]} number{row}" for row, kind in enumerate(self.kind)]
        self.items = pl.DataFrame({"item_id": [f"i{row}" for row in range(ITEMS)], "title": self.texts})
        chosen = np.stack([rng.permutation(ITEMS)[:EACH] for _ in range(USERS)])
        self.chosen = chosen
        said = np.take_along_axis(self.truth, chosen, 1) + NOISE * rng.normal(size=chosen.shape)
        self.said = said.clip(0.0, 6.0)
        self.train = slice(0, int(USERS * 0.8))
        self.tests = range(int(USERS * 0.8), USERS)

    def frame(self, users, least=0):
        """The log of some users; of items from row `least` on."""
        rows = [
            (f"u{user}", f"i{item}", rating, float(place))
            for user in users
            for place, (item, rating) in enumerate(zip(self.chosen[user], self.said[user], strict=True))
            if item >= least
        ]
        return pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "position"], orient="row")

    def told(self, user, shots):
        """The first ratings of a user."""
        pairs = zip(self.chosen[user, :shots].tolist(), self.said[user, :shots].tolist(), strict=True)
        return [Interaction(f"i{item}", rating=rating) for item, rating in pairs]

    def rest(self, user):
        """Items and ratings that come after the tenth."""
        return [f"i{item}" for item in self.chosen[user, 10:]], self.said[user, 10:]


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def encoder(world):
    return word_vectors([*world.texts, "boot boot later", "tent tent later"])


@pytest.fixture(scope="module")
def rater(world, encoder):
    """A model of the first users; the first twelve items, two of each kind, were never rated."""
    made = Recommender(encoder, config=SMALL, rng=0)
    made.fit_meta(world.frame(range(world.train.stop), least=12), world.items)
    return made


def errors(rater, world, shots, column="mean"):
    """What test users' later ratings differ by from what is foretold, all of them in a row."""
    found = []
    for user in world.tests:
        items, said = world.rest(user)
        state = rater.adapt_user(world.told(user, shots))
        found.append(rater.predict_rating(state, items)[column].to_numpy() - said)
    return np.concatenate(found)


def test_the_posterior_is_the_one_of_bayes():
    """Against numpy's inverse, user by user, and against `solve`, which goes another way."""
    rng = np.random.default_rng(0)
    users, shots, dim = 4, 7, 5
    items, labels = rng.normal(size=(users, shots, dim)), rng.normal(size=(users, shots))
    weights, l2 = rng.uniform(0.5, 2, (users, shots)), rng.uniform(0.5, 2, dim)
    prior, sizes = rng.normal(size=(users, dim)), np.array([0, 1, 4, 7])
    mask = torch.from_numpy(np.arange(shots) < sizes[:, None])
    tensors = [torch.from_numpy(one) for one in (prior, items, labels)]

    mean, covariance = posterior(*tensors, mask, l2=torch.from_numpy(l2), weights=torch.from_numpy(weights))
    solved = solve(*tensors, mask, l2=torch.from_numpy(l2), weights=torch.from_numpy(weights))

    for user, size in enumerate(sizes):
        rows, said, sure = items[user, :size], labels[user, :size], np.diag(weights[user, :size])
        expected = np.linalg.inv(np.diag(l2) + rows.T @ sure @ rows)
        np.testing.assert_allclose(covariance[user], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mean[user], expected @ (rows.T @ sure @ said + l2 * prior[user]), rtol=1e-9)
    torch.testing.assert_close(mean, solved)


def test_planted_levels_and_tastes_are_found(rater, world):
    """Against what can be known at all: without ratings the item's level, with ten of them little more than the noise."""
    wrong = [np.sqrt(np.square(errors(rater, world, shots)).mean()) for shots in (0, 1, 3, 10)]
    blind = np.sqrt(0.6**2 + 0.6**2 + NOISE**2)
    assert wrong[0] < 1.05 * blind
    assert wrong[0] > wrong[1] > wrong[2] > wrong[3]
    assert wrong[3] < 1.25 * NOISE


def test_intervals_and_deviations_are_honest(rater, world):
    for shots in (0, 3, 10):
        found = []
        for user in world.tests:
            items, said = world.rest(user)
            frame = rater.predict_rating(rater.adapt_user(world.told(user, shots)), items)
            found.append(frame.with_columns(said=pl.Series(said)))
        frame = pl.concat(found)
        covered = ((frame["low"] <= frame["said"]) & (frame["said"] <= frame["high"])).mean()
        assert 0.74 < covered < 0.86, (shots, covered)
        surprise = (((frame["mean"] - frame["said"]) / frame["std"]) ** 2).mean()
        assert 0.8 < surprise < 1.25, (shots, surprise)
        assert (frame["low"] <= frame["median"]).all() and (frame["median"] <= frame["high"]).all()


def test_more_ratings_narrow_what_is_expected(rater, world):
    spreads = [
        np.mean([
            rater.predict_rating(rater.adapt_user(world.told(user, shots)), world.rest(user)[0])["std"].mean()
            for user in world.tests
        ])
        for shots in (0, 1, 3, 10)
    ]  # fmt: skip
    assert spreads == sorted(spreads, reverse=True), spreads


def test_items_that_nobody_rated_go_by_their_texts(rater, world):
    new = [f"i{row}" for row in range(12)]
    found = rater.predict_rating(rater.adapt_user([]), new)["mean"].to_numpy()
    planted = 3.0 + np.linspace(-0.6, 0.6, KINDS)[world.kind[:12]]
    assert np.corrcoef(found, planted)[0, 1] > 0.9
    assert np.abs(found - planted).mean() < 0.5 * np.abs(planted - planted.mean()).mean()


def test_an_item_that_is_added_later_is_rated_like_one_that_never_was(rater, world, encoder, tmp_path):
    rater.save(tmp_path / "model")
    own = Recommender.load(tmp_path / "model", encoder=encoder)
    own.add_items(pl.DataFrame({"item_id": ["boots", "tents"], "title": ["boot boot later", "tent tent later"]}))
    boots, tents = own.predict_rating(own.adapt_user([]), ["boots", "tents"])["mean"]
    level = dict(zip(WORDS, np.linspace(-0.6, 0.6, KINDS), strict=True))
    assert boots - tents > 0.5 * (level["boot"] - level["tent"])


def test_a_removed_item_comes_back_as_a_new_one(rater, world, encoder, tmp_path):
    rater.save(tmp_path / "model")
    own = Recommender.load(tmp_path / "model", encoder=encoder)
    state = own.adapt_user(world.told(world.tests[0], 5))
    before = own.predict_rating(state, ["i50"])
    own.remove_items(["i50"])
    with pytest.raises(UnknownItemError, match="i50"):
        own.predict_rating(state, ["i50"])
    own.add_items(world.items.filter(pl.col("item_id") == "i50"))
    after = own.predict_rating(state, ["i50"])
    assert after["std"].item() > before["std"].item()
    own.save(tmp_path / "again")
    assert Recommender.load(tmp_path / "again", encoder=encoder).predict_rating(state, ["i50"]).equals(after)


def test_the_order_of_the_support_does_not_matter(rater, world):
    told, items = world.told(world.tests[0], 8), world.rest(world.tests[0])[0]
    one = rater.predict_rating(rater.adapt_user(told), items)
    other = rater.predict_rating(rater.adapt_user(told[::-1]), items)
    for name in one.columns[1:]:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-4)


@bitwise
def test_a_frame_of_users_makes_the_states_of_single_users(rater, world):
    frame = world.frame(list(world.tests)[:20])
    states = rater.adapt_users(frame)
    items = world.items["item_id"].head(30)
    for user in list(world.tests)[:20]:
        told = [Interaction(one.item, time=float(place), rating=one.rating)
                for place, one in enumerate(world.told(user, EACH))]  # fmt: skip
        alone = rater.adapt_user(told)
        np.testing.assert_array_equal(alone.ratings, states[f"u{user}"].ratings)
        assert rater.predict_rating(alone, items).equals(rater.predict_rating(states[f"u{user}"], items))


@bitwise
def test_many_users_at_once_are_what_each_is_alone(rater, world):
    """The head itself, over a batch with padding."""
    model, _ = rater._ready()
    head = model.ratings.head
    sizes = np.array([0, 1, 4, 9])
    mask = torch.from_numpy(np.arange(9) < sizes[:, None])
    rows, said = torch.from_numpy(world.chosen[-4:, :9]), torch.from_numpy(world.said[-4:, :9]).float()
    wanted = torch.from_numpy(world.chosen[-4:, 10:20])
    together = head.predict(head.items.take(rows), said, mask, head.items.take(wanted))
    for user, size in enumerate(sizes):
        few = slice(0, max(1, size))
        alone = head.predict(
            head.items.take(rows[user : user + 1, few]), said[user : user + 1, few], mask[user : user + 1, few],
            head.items.take(wanted[user : user + 1]),
        )  # fmt: skip
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[user], rtol=1e-5, atol=1e-5)


def test_a_state_and_a_model_come_back_whole(rater, world, tmp_path):
    state = rater.adapt_user(world.told(world.tests[1], 6))
    again = UserState.from_bytes(state.to_bytes())
    assert again == state
    rater.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    items = world.items["item_id"]
    assert loaded.predict_rating(again, items).equals(rater.predict_rating(state, items))
    assert loaded.info()["model"] == rater.info()["model"]


def test_lists_are_the_same_with_ratings_in_the_log_and_without(rater, world, encoder):
    plain = Recommender(encoder, config=SMALL, rng=0)
    plain.fit_meta(world.frame(range(world.train.stop), least=12).drop("rating"), world.items)
    history = [f"i{item}" for item in world.chosen[world.tests[0], :5]]
    assert plain.recommend(plain.adapt_user(history)) == rater.recommend(rater.adapt_user(history))


def test_one_state_ranks_and_foretells(rater, world):
    told = world.told(world.tests[2], 5)
    rated, bare = rater.adapt_user(told), rater.adapt_user([one.item for one in told])
    assert rater.recommend(rated) == rater.recommend(bare)
    assert not rater.predict_rating(rated, ["i20"]).equals(rater.predict_rating(bare, ["i20"]))


def test_a_low_rating_is_a_dislike_where_the_fit_says_so(world, encoder):
    made = Recommender(encoder, config=replace(SMALL, liked_from=3.0), rng=0)
    made.fit_meta(world.frame(range(100)), world.items)
    low = made.adapt_user([Interaction("i3", rating=1.0)])
    assert np.array_equal(low.query, made.adapt_user([Interaction("i3", label=-1.0)]).query)
    assert np.array_equal(
        made.adapt_user([Interaction("i3", label=0.5, rating=1.0)]).query,
        made.adapt_user([Interaction("i3", label=0.5)]).query,
    )
    liked = made.adapt_user([Interaction("i3", label=1.0, rating=1.0)])  # said, and not taken for a default
    assert np.array_equal(liked.query, made.adapt_user(["i3"]).query)
    assert not np.array_equal(liked.query, low.query)


def test_a_fit_can_leave_ratings_out(world, encoder):
    log = world.frame(range(100))
    with_, without = (Recommender(encoder, config=SMALL, rng=0) for _ in range(2))
    with_.fit_meta(log, world.items)
    report = without.fit_meta(log, world.items, ratings=False)
    assert any("(ratings=False)" in note for note in report.notes)
    with pytest.raises(InvalidDataError, match=r"told to leave them out \(ratings=False\)"):
        without.predict_rating(without.adapt_user([]), ["i3"])
    both = [one.recommend(one.adapt_user(["i3", "i4"]), k=5) for one in (with_, without)]
    assert both[0] == both[1]


def test_users_without_ratings_are_strangers(rater, world):
    """Items without ratings say nothing, among those that have some too."""
    nobody = rater.predict_rating(rater.adapt_user([]), ["i20", "i30"])
    assert rater.predict_rating(rater.adapt_user(["i40", "i41"]), ["i20", "i30"]).equals(nobody)
    told = world.told(world.tests[0], 3)
    one = rater.predict_rating(rater.adapt_user(told), ["i20"])
    with_more = rater.predict_rating(rater.adapt_user(["i99" if told[0].item != "i99" else "i98", *told]), ["i20"])
    for name in one.columns[1:]:
        np.testing.assert_allclose(one[name], with_more[name], rtol=1e-5)


def test_what_is_asked_for_comes_back_in_order(rater):
    state = rater.adapt_user([])
    assert rater.predict_rating(state, ["i9", "i3", "i9"])["item_id"].to_list() == ["i9", "i3", "i9"]
    nothing = rater.predict_rating(state, [])
    assert nothing.height == 0 and nothing.columns == ["item_id", "mean", "std", "low", "median", "high"]


def test_numbers_stay_on_the_scale(rater, world):
    for rating in (0.0, 6.0):
        told = [Interaction(f"i{row}", rating=rating) for row in range(12, 40)]
        frame = rater.predict_rating(rater.adapt_user(told), world.items["item_id"])
        for name in ("mean", "low", "median", "high"):
            assert frame[name].is_between(0.0, 6.0).all()
        assert np.isfinite(frame["std"].to_numpy()).all() and (frame["std"] > 0).all()


def test_ratings_outside_the_scale_are_refused(rater):
    with pytest.raises(InvalidDataError, match=r"1 of 2 ratings lie outside 0 to 6.*'i5', 60\.0.*Bring them"):
        rater.adapt_user([Interaction("i4", rating=3.0), Interaction("i5", rating=60.0)])
    frame = pl.DataFrame({"user_id": ["a", "a"], "item_id": ["i4", "i5"], "rating": [3.0, -1.0]})
    with pytest.raises(InvalidDataError, match=r"1 of 2 ratings lie outside.*'i5', -1\.0"):
        rater.adapt_users(frame)


@pytest.mark.parametrize("rating", [float("nan"), float("inf"), "five", 1e300])
def test_a_rating_that_is_no_number_is_refused(rater, rating):
    with pytest.raises(InvalidDataError, match="finite rating"):
        rater.adapt_user([Interaction("i4", rating=rating)])


def test_unknown_items_are_named(rater):
    with pytest.raises(UnknownItemError, match="'gone'"):
        rater.predict_rating(rater.adapt_user([]), ["i1", "gone"])
    kept = rater.adapt_user([Interaction("gone", rating=5.0), Interaction("i1", rating=2.0)], on_unknown="drop")
    only = rater.adapt_user([Interaction("i1", rating=2.0)])
    assert rater.predict_rating(kept, ["i7"]).equals(rater.predict_rating(only, ["i7"]))


def test_a_model_without_ratings_says_so_and_what_to_do(world, encoder):
    made = Recommender(encoder, config=SMALL, rng=0)
    log = world.frame(range(60))
    made.fit_meta(log.drop("rating"), world.items)
    with pytest.raises(InvalidDataError, match=r"no `rating` column.*interaction_columns"):
        made.predict_rating(made.adapt_user([]), ["i1"])
    made.fit_meta(log.with_columns(rating=pl.lit(5.0)), world.items)
    with pytest.raises(InvalidDataError, match=r"all are 5.*Fit on a log with ratings"):
        made.predict_rating(made.adapt_user([]), ["i1"])
    made.fit_meta(world.frame(range(7)), world.items)
    with pytest.raises(InvalidDataError, match="only 7 users"):
        made.predict_rating(made.adapt_user([]), ["i1"])


def test_a_state_with_infinite_ratings_is_refused(rater):
    state = rater.adapt_user([Interaction("i1", rating=2.0)])
    broken = replace(state, ratings=np.array([np.inf], np.float32))
    with pytest.raises(InvalidDataError, match=re.escape("The state's ratings")):
        rater.predict_rating(broken, ["i1"])


@pytest.mark.parametrize("unit", [1.0, 20.0])
def test_the_unit_of_the_ratings_does_not_matter(world, encoder, unit):
    """Half stars or percent: the same log in another unit gives the same numbers in that unit."""
    catalog = Catalog.read(world.items)
    frame = world.frame(range(120))
    text = torch.from_numpy(encoder.encode(catalog.texts))

    def learned(factor):
        log = Interactions.read(frame.with_columns(pl.col("rating") * factor), catalog)
        head = learn_ratings(log, text, np.random.default_rng(0))
        assert isinstance(head, RatingHead)
        rows = torch.from_numpy(world.chosen[-1:, :4])
        said = torch.from_numpy(world.said[-1:, :4] * factor).float()
        return head.predict(head.items.take(rows), said, torch.ones(1, 4, dtype=torch.bool), head.items.take(rows))

    one, other = learned(1.0), learned(unit)
    torch.testing.assert_close(one.mean * unit, other.mean, rtol=1e-2, atol=1e-2 * unit)
    torch.testing.assert_close(one.std * unit, other.std, rtol=3e-2, atol=1e-2 * unit)


def test_what_texts_say_is_learned_from_items_that_the_encoder_was_not_trained_on(world):
    """Texts of the taught half give their items' levels away; those of the others say nothing."""
    catalog, taught = Catalog.read(world.items), np.arange(ITEMS) % 2 == 0
    rng = np.random.default_rng(3)
    text = rng.normal(size=(ITEMS, 4)) / 2
    text[taught, 0] = world.item[taught]
    log = Interactions.read(world.frame(range(150)), catalog)
    heads = [
        learn_ratings(log, torch.from_numpy(text.astype(np.float32)), np.random.default_rng(0), taught=one)
        for one in (None, taught)
    ]
    slopes = [float(head.newcomer.slope[0, 0]) for head in heads]
    assert slopes[0] > 0.2
    assert abs(slopes[1]) < slopes[0] / 2
