"""What people say: labels are learned from logs with ratings, weights count against each other, explanations stay exact."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from mecold import Catalog, Interaction, InvalidDataError, Recommender
from mecold.data.histories import Histories
from mecold.data.interactions import Interactions
from mecold.meta.episodes import half_told
from tests import reference
from tests.conftest import SMALL, bitwise

RATED = replace(SMALL, liked_from=4.0, training=replace(SMALL.training, epochs=12, patience=12, batch_users=64))


def with_strays(shop, rng):
    """The shop's log in which every third row is a stray: any item at all, rated 1; what users are after is rated 5."""
    log = shop.interactions
    stray = rng.random(log.height) < 1 / 3
    anything = pl.Series(rng.choice(shop.items["item_id"].to_numpy(), log.height))
    return log.with_columns(
        item_id=pl.select(pl.when(pl.Series(stray)).then(anything).otherwise(log["item_id"])).to_series(),
        rating=pl.Series(np.where(stray, 1.0, 5.0)),
    ).unique(["user_id", "item_id"], keep="first", maintain_order=True)


def disappointed(shop, rng):
    """The shop's log in which any third of the rows is rated 1: such a row says as much of its user's kind as the others."""
    return shop.interactions.with_columns(
        rating=pl.Series(np.where(rng.random(shop.interactions.height) < 1 / 3, 1.0, 5.0))
    )


@pytest.fixture(scope="module", params=[with_strays, disappointed])
def rated(request, shop, fit):
    """A world, the model of its first users, and the other users' histories as (item, rating)."""
    log = request.param(shop, np.random.default_rng(0))
    users = log["user_id"].unique().sort()
    first = pl.col("user_id").is_in(users.head(int(len(users) * 0.7)).implode())
    others = log.filter(~first).group_by("user_id", maintain_order=True).agg("item_id", "rating")
    model = fit(log.filter(first), shop.items, RATED)
    return request.param, model, [list(zip(*row, strict=True)) for row in others.drop("user_id").iter_rows()]


def quality(model, histories, shots, label):
    """nDCG@10 of what is liked later, by plain loops; `label` turns a rating into a label, or into None to leave it out."""
    found = []
    for history in histories:
        support, later = history[:shots], {item for item, rating in history[shots : shots + 10] if rating >= 4}
        if not later or all(rating >= 4 for _, rating in support):
            continue
        told = [Interaction(item, label(rating)) for item, rating in support if label(rating) is not None]
        seen = [item for item, _ in support]
        listed = model.recommend(model.adapt_user(told), k=10, exclude=seen)
        found.append(reference.ndcg([one.item for one in listed], later))
    return np.array(found)


@pytest.mark.parametrize("shots", [3, 6])
def test_telling_more_is_not_worse_than_telling_less(rated, shots):
    """User by user, within what chance leaves, and what rows cost that say nothing and stand among those that do."""
    _, model, histories = rated
    told = quality(model, histories, shots, lambda rating: 1.0 if rating >= 4 else -1.0)
    for name, other in (("silent", 0.0), ("left out", None), ("as a liking", 1.0)):
        lost = quality(model, histories, shots, lambda rating, other=other: 1.0 if rating >= 4 else other) - told
        chance = lost.std() / len(lost) ** 0.5
        assert lost.mean() < 0.02 * told.mean() + 2.5 * chance, (name, told.mean(), lost.mean(), chance)


def test_what_a_dislike_says_is_learned(rated):
    world, model, _ = rated
    said = model._state[0].head.prior.disliked[1:-1]
    head = model._state[0].head
    collaborative = said[:, [head.column[name] for name in ("symmetric", "directed")]].mean()
    assert (collaborative > 0.3) if world is disappointed else (collaborative < 0.25), collaborative


def test_explanations_of_dislikes_add_up(rated):
    _, model, histories = rated
    support = [Interaction(item, 1.0 if rating >= 4 else -1.0) for item, rating in histories[0][:6]]
    target = model.recommend(model.adapt_user(support), k=1)[0]
    found = model.explain(support, target.item)
    assert found.score == pytest.approx(target.score, rel=1e-4)
    assert found.base + sum(part for _, part in found.contributions) == pytest.approx(found.score, rel=1e-4)


def test_a_log_without_ratings_teaches_nothing_of_dislikes_so_that_they_only_hide(fitted):
    user, silent = (fitted.adapt_user(["p1", Interaction("p2", label)]) for label in (-1.0, 0.0))
    assert user.query.tolist() == silent.query.tolist()
    assert "p2" not in {one.item for one in fitted.recommend(user, k=299)}
    assert not torch.any(fitted._state[0].head.prior.disliked)


# ---- weights


def weighted(weights):
    return [Interaction(f"p{row}", weight=weight) for row, weight in enumerate(weights)]


@bitwise
@pytest.mark.parametrize("factor", [1e-3, 0.7, 60.0, 1e6])
def test_weights_times_a_constant_are_the_same_weights(own, factor):
    model, shelf = own._state
    heeding = replace(model.head.prior, heed=torch.full_like(model.head.prior.heed, 0.8))
    own._state = replace(model, head=replace(model.head, prior=heeding)), shelf
    equal = own.adapt_user(weighted([factor] * 4))
    assert equal.query.tolist() == own.adapt_user([f"p{row}" for row in range(4)]).query.tolist()
    some = [1.0, 5.0, 0.2, 3.0]
    found, expected = (own.adapt_user(weighted([w * f for w in some])).query for f in (factor, 1.0))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(expected, equal.query, rtol=1e-3)


@bitwise
def test_a_constant_weight_column_changes_no_bit_of_a_fit(shop, fit, fitted):
    same = fit(shop.interactions.with_columns(weight=pl.lit(12.5)), shop.items)
    assert same.adapt_user(["p1", "p2"]).query.tolist() == fitted.adapt_user(["p1", "p2"]).query.tolist()


def test_emphasis_is_that_of_plain_loops():
    weights = [[2.0, 8.0, 1.0], [5.0, 5.0]]
    flat = np.concatenate(weights)
    users = Histories.padded(np.arange(5), np.array([3, 2]), weights=flat)
    for row, own in enumerate(weights):
        usual = np.prod(own) ** (1 / len(own))
        expected = [np.log2(1 + weight / usual) for weight in own]
        np.testing.assert_allclose(users.emphasis[row, : len(own)], expected, rtol=1e-5)
    assert users.emphasis[1].tolist() == [1.0, 1.0, 1.0]


# ---- half of the users keep their opinions to themselves


def test_silent_users_say_nothing_of_what_they_disliked_and_little_of_what_they_liked():
    rng = np.random.default_rng(0)
    labels = rng.choice([1.0, -1.0, 0.5], 4000 * 6)
    users = Histories.padded(np.arange(4000 * 6), np.full(4000, 6), labels=labels)
    told = half_told(users, rng).labels
    silent = (told != users.labels).any(1)
    assert 0.45 < silent.float().mean() < 0.55
    assert (told[silent] >= 0).all()
    assert torch.equal(told[~silent], users.labels[~silent])
    liked = users.labels[silent] > 0
    assert 0.25 < (told[silent][liked] == 0).float().mean() < 0.35
    plain = Histories.padded(np.arange(6), np.array([6]), weights=np.full(6, 3.0))
    assert half_told(plain, rng) is plain


def test_a_model_keeps_what_it_learned_of_labels(rated, encoder, tmp_path):
    _, model, histories = rated
    model.save(tmp_path / "rated")
    support = [Interaction(item, 1.0 if rating >= 4 else -1.0) for item, rating in histories[1][:5]]
    again = Recommender.load(tmp_path / "rated", encoder=encoder)
    np.testing.assert_allclose(again.adapt_user(support).query, model.adapt_user(support).query, rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        ([-1, 1], r"Thumbs \(-1 and 1 .*liked_from=1\)"),
        ([0, 1], r"Thumbs \(0 and 1 .*liked_from=1\)"),
        ([1, 2, 3, 4, 5], r"from 1 to 5 \(whole numbers\).*liked_from=4\)"),
        ([0.5, 1, 3.5, 5], r"from 0.5 to 5 \(half stars\).*liked_from=4\)"),
        ([0, 3, 7, 10], r"from 0 to 10 .*liked_from=7\)"),
        ([10, 35, 80], r"from 10 to 80 .*liked_from=35\)"),
    ],
)
def test_ratings_that_are_not_read_are_told_with_the_way_out(shop, scale, told):
    catalog = Catalog.read(shop.items)
    rating = pl.Series(np.random.default_rng(0).choice(scale, shop.interactions.height).astype(float))
    log = Interactions.read(shop.interactions.with_columns(rating=rating), catalog)
    assert re.search(told, log.unread_ratings(None))
    assert log.unread_ratings(2.0) is None
    assert Interactions.read(shop.interactions.with_columns(rating=pl.lit(3.0)), catalog).unread_ratings(None) is None


def test_a_fit_notes_ratings_that_it_does_not_read_and_the_model_keeps_the_note(shop, fit, encoder, tmp_path):
    quick = replace(SMALL, training=replace(SMALL.training, epochs=0, calibrate=False))
    model = fit(shop.interactions.with_columns(rating=pl.int_range(pl.len()) % 5 + 1.0), shop.items, quick)
    model.save(tmp_path / "m")
    for one in (model, Recommender.load(tmp_path / "m", encoder=encoder)):
        assert any("Ratings from 1 to 5" in note for note in one.info()["notes"])


@pytest.mark.parametrize("label", [1.01, -3.0, 5.0])
def test_labels_beyond_one_are_refused_at_both_doors(fitted, label):
    with pytest.raises(InvalidDataError, match="from -1"):
        fitted.adapt_user([Interaction("p1", label)])
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["p1"], "label": [label]})
    with pytest.raises(InvalidDataError, match="1 of 1 labels lie outside -1"):
        fitted.adapt_users(frame)
