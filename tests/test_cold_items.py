"""Items that nobody has touched: lookalikes, stand-ins, and how high they come, against plain loops and planted tastes."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold import Recommender
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.space.statistics import FactorPair
from mecold.space.lookalikes import NEAREST, SHARPNESS, TRUST, Lookalikes
from mecold.meta.newcomers import Full, cold_episodes, newness_of
from mecold.meta.episodes import Opening
from mecold.space.lists import Neighbours
from mecold.space.shelf import cold_rows, with_new_text
from mecold.space.space import ItemTower, Layout
from tests.conftest import SMALL


def catalogue(seed, items):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, 3)).astype(np.float32)
    vectors[rng.random(items) < 0.2] = 0.0  # no text
    return rng, torch.from_numpy(vectors)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), items=st.integers(1, 45))
def test_a_stand_in_is_the_weighted_mean_of_the_nearest_usable_texts(seed, items):
    rng, vectors = catalogue(seed, items)
    texts = torch.nn.functional.normalize(vectors, dim=1)
    usable = torch.from_numpy(rng.random(items) < 0.8)
    counts = torch.from_numpy(rng.integers(0, 30, items).astype(np.float32))
    table = torch.from_numpy(rng.normal(size=(items, 2)).astype(np.float32))

    alike = Lookalikes.find(texts, texts, usable)
    found = alike.mean(table, counts).numpy()

    for item in range(items):
        others = [o for o in range(items) if usable[o] and texts[o].any() and texts[item].any()]
        cosine = {o: float(texts[item] @ texts[o]) for o in others}
        best = sorted(others, key=lambda o: -cosine[o])[:NEAREST]
        weight = {o: math.exp(SHARPNESS * (cosine[o] - 1)) * float(counts[o] / (counts[o] + TRUST)) for o in best}
        total = sum(weight.values())
        expected = sum((w * table[o].numpy() for o, w in weight.items()), np.zeros(2)) / max(total, 1e-12)
        np.testing.assert_allclose(found[item], expected, atol=1e-3)


def small_tower():
    """Thirty items: 0 is cold, and its one lookalike is 5; 1 is cold and has no text; 6 has no symmetric factors."""
    rng, vectors = catalogue(1, 30)
    vectors[0] = vectors[5] = torch.tensor([90.0, -70.0, 40.0])  # far from all others
    vectors[1] = 0.0
    counts = torch.from_numpy(rng.integers(1, 50, 30).astype(np.float32))
    counts[[0, 1]] = 0
    pairs = {
        name: FactorPair(*(torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32)) for _ in range(2)))
        for name in ("symmetric", "trend")
    }
    pairs["symmetric"].item[6] = pairs["symmetric"].support[6] = 0.0
    tower = ItemTower(3, Layout(("symmetric", "trend", "text", "new", "popularity"), (4, 4, 3 + 2, 1, 1), 2))
    tower.start_from(vectors, counts)
    lists = Neighbours(torch.full((30, 1), 5, dtype=torch.int32), torch.ones(30, 1))
    return tower, pairs, lists, vectors, counts


def test_a_cold_item_has_what_its_twin_has_and_a_warm_one_keeps_its_own():
    tower, pairs, lists, vectors, counts = small_tower()
    tower.cold_gain.copy_(torch.tensor([2.0, 1.5, 3.0, 0.7, 1.0, 0.5]))

    with torch.no_grad():
        space = tower.space(pairs, lists, vectors, counts)

    close = {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(space.item[5, :4], pairs["symmetric"].item[5])
    torch.testing.assert_close(space.support[0, :4], pairs["symmetric"].support[5], **close)
    torch.testing.assert_close(space.item[0, :4], 2 * pairs["symmetric"].item[5], **close)
    torch.testing.assert_close(space.item[0, 4:8], 1.5 * pairs["trend"].item[5], **close)
    torch.testing.assert_close(space.item[0, 8:11], 3 * tower.text(vectors)[5])
    torch.testing.assert_close(space.item[0, 11:13], 0.7 * pairs["symmetric"].item[5, :2], **close)
    torch.testing.assert_close(space.support[:, 11:13], space.support[:, :2])  # what every item says of its user
    assert not space.item[2:, 11:13].any()  # is what only new items are found by
    twin = float(tower.popularity(counts)[5])
    assert float(space.popularity[0]) == pytest.approx(min(twin, 0.5 * twin), abs=0.02)
    assert not space.item[1, :13].any()  # without a text there is no lookalike
    assert float(space.popularity[1]) == float(tower.popularity(torch.zeros(1))[0])
    assert space.item[:, -2].tolist() == [1.0] + 29 * [0.0]
    assert space.cold.nonzero()[:, 0].tolist() == [0, 1]
    torch.testing.assert_close(tower.counts(tower.popularity(counts)), counts, rtol=1e-4, atol=1e-3)
    assert not space.near.values[0].any()


def test_a_new_text_moves_the_texts_part_of_a_known_item_alone():
    tower, pairs, lists, vectors, counts = small_tower()
    tower.cold_gain.fill_(3.0)
    with torch.no_grad():
        old = tower.space(pairs, lists, vectors, counts)
        vectors[0] = vectors[8]  # an item that nobody has touched, with the text that the known item is to have
        new = tower.space(pairs, lists, vectors, counts)
    made = with_new_text(old, [7], new.head(1), tower.layout)
    part = tower.layout.parts["text"]
    for side in ("support", "item"):
        before, after = getattr(old, side)[7], getattr(made, side)[0]
        torch.testing.assert_close(after[part], tower.text(vectors)[8])
        assert torch.equal(after[: part.start], before[: part.start]) and torch.equal(
            after[part.stop :], before[part.stop :]
        )
    assert not made.item[0, tower.layout.parts["alike"]].any()


@pytest.mark.parametrize(
    ("factors", "alike"),
    [
        ({}, 0),
        ({"trend": 5}, 0),
        ({"host": 2}, 2),
        ({"directed": 7, "trend": 3}, 7),
        ({"symmetric": 100, "directed": 9}, 64),
    ],
)
def test_the_parts_of_a_layout_lie_side_by_side(factors, alike):
    layout = Layout.of(factors, 6)
    parts = layout.parts
    assert [*parts] == [*factors, "text", "alike", "new", "popularity"]
    assert [i for part in parts.values() for i in range(part.start, part.stop)] == list(range(layout.dim))
    assert parts["alike"].stop - parts["alike"].start == layout.alike == alike
    assert parts["text"].stop - parts["text"].start == 6 and layout.factors == factors


def test_a_channel_is_averaged_over_the_lookalikes_that_have_it():
    tower, pairs, lists, vectors, counts = small_tower()
    vectors[6] = vectors[5]  # a second twin, without symmetric factors
    with torch.no_grad():
        space = tower.space(pairs, lists, vectors, counts)
    torch.testing.assert_close(space.support[0, :4], pairs["symmetric"].support[5], rtol=0.02, atol=0.02)
    trust = counts[5:7] / (counts[5:7] + TRUST)
    mean = (trust[:, None] * pairs["trend"].item[5:7]).sum(0) / trust.sum()
    torch.testing.assert_close(space.item[0, 4:8], mean, rtol=0.02, atol=0.02)


def test_a_space_is_the_same_when_the_lookalikes_are_known_before():
    tower, pairs, lists, vectors, counts = small_tower()
    dropped = torch.arange(30) % 4 == 2
    alike = tower.lookalikes(vectors, dropped | (counts == 0))
    plain, known = (tower.space(pairs, lists, vectors, counts, dropped, given) for given in (None, alike))
    for side in ("support", "item"):
        torch.testing.assert_close(getattr(known, side), getattr(plain, side), rtol=0, atol=0)
    other = replace(alike, rows=alike.rows.flip(0))
    assert not torch.equal(tower.space(pairs, lists, vectors, counts, dropped, other).item, plain.item)


def test_cold_episodes_are_the_first_known_items_and_the_new_ones_that_were_liked():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 25, 60)
    rows = np.array([np.pad(rng.permutation(50)[:n], (0, 25 - n)) for n in lengths])
    labels = np.where(rng.random(rows.shape) < 0.8, 1.0, -1.0).astype(np.float32)
    new = rng.random(50) < 0.3
    times = np.arange(rows.size, dtype=float).reshape(rows.shape)
    opening = Opening(*map(torch.from_numpy, (rows, labels, np.ones_like(labels), times, lengths)))

    found = cold_episodes(opening, torch.from_numpy(new), 4, 3)

    expected = []
    for user in range(60):
        history = list(zip(rows[user], labels[user], times[user], strict=True))[: lengths[user]]
        known = [row for row in history if not new[row[0]]]
        support = known[:4]
        liked = [row for row in history if row[1] > 0 and row not in support]
        if len(support) >= 3 and liked:
            expected.append((support, liked, history))
    assert len(found) == len(expected) > 20
    for user, (support, liked, history) in enumerate(expected):
        mask = found.support.mask[user]
        assert found.support.rows[user][mask].tolist() == [row[0] for row in support]
        assert found.support.labels[user][mask].tolist() == [row[1] for row in support]
        assert float(found.support.time[user]) == support[-1][2]
        assert found.items[user][found.after[user]].tolist() == [row[0] for row in liked if row[2] > support[-1][2]]
        seen = [row[0] for row in history if row[2] <= support[-1][2]]
        assert found.items[user][found.before[user]].tolist() == seen
        assert found.items[user][found.new[user]].tolist() == [row[0] for row in liked if new[row[0]]]


def test_new_items_are_ranked_above_plain_content_and_get_room_in_the_full_list(shop, encoder):
    dataset = Dataset.read(shop.interactions, shop.items, name="shop", encoder=encoder)
    report = evaluate("mecold,content,popularity", dataset, protocol="item", seeds=(0,)).data
    scores = {name: one["mean"]["10"] for name, one in report["systems"].items()}
    assert scores["mecold"]["ndcg@10"]["mean"] > 1.05 * scores["content"]["ndcg@10"]["mean"]
    assert scores["mecold"]["full:ndcg@10"]["mean"] > scores["popularity"]["full:ndcg@10"]["mean"] + 0.02


def lists_of(users=200, hits_known=0.5, hits_new=0.1, wanted=0.2):
    """The best known items score 10 to 1, the best new ones 5 to -4; known ones are hits more often."""
    rng = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.arange(10, 0, -1.0), torch.arange(5, -5, -1.0)]).repeat(users, 1)
    scores = (
        scores
        + torch.rand(users, 20, generator=rng)
        + 10 * (torch.arange(20) >= 10) * torch.rand(users, 1, generator=rng)
    )
    chance = torch.tensor([hits_known] * 10 + [hits_new] * 10)
    hit = torch.rand(users, 20, generator=rng) < chance
    ten = torch.full((users,), 10)
    return Full(scores, hit, ten, ten, torch.full((users,), int(10 * wanted)))


def shown(full, bonus):
    top = (full.scores + bonus * (torch.arange(20) >= 10)).topk(10, dim=1).indices
    return float((top >= 10).float().mean())


@pytest.mark.parametrize(("cost", "wanted"), [(0.0, 0.2), (0.05, 0.2), (0.05, 0.5), (1.0, 0.3), (1.0, 1.0)])
@pytest.mark.parametrize("most", [1.0, 0.5])
def test_newness_is_the_largest_bonus_within_both_limits(cost, wanted, most):
    full = lists_of(wanted=wanted)

    bonus, share = newness_of([full], cost, most)
    wanted *= most

    def mark(bonus):
        top = (full.scores + bonus * (torch.arange(20) >= 10)).topk(10, dim=1).indices
        return float((full.hit.gather(1, top) / torch.log2(torch.arange(2.0, 12.0))).sum(1).mean())

    assert share == pytest.approx(shown(full, bonus))
    assert share <= wanted
    best = max(mark(value) for value in np.linspace(-10, 20, 61) if shown(full, value) <= wanted)
    assert mark(bonus) >= (1 - cost) * best - 0.02
    if cost == 1.0:
        assert share > min(wanted - 0.11, 0.3)  # nothing but the fair share holds it back, or that all see a new item


def test_newness_of_a_catalogue_so_small_that_all_is_shown_is_nothing():
    full = lists_of()
    full.scores[:, 9] = -torch.inf  # nine known items
    assert newness_of([full], 0.05, 1.0) == (0.0, 0.0)


def test_a_dozen_items_are_enough_for_a_fit(encoder, shop):
    few = [f"p{row}" for row in range(12)]
    log = pl.DataFrame(
        [(f"u{u}", item) for u in range(150) for item in np.random.default_rng(u).permutation(few)[:8].tolist()],
        schema=["user_id", "item_id"], orient="row",
    )  # fmt: skip
    recommender = Recommender(encoder, rng=0)
    recommender.fit_meta(log, shop.items.filter(pl.col("item_id").is_in(few)))
    assert len(recommender.recommend(recommender.adapt_user(["p1"]), k=20)) == 11


def test_an_item_added_later_stands_where_a_fit_would_have_put_it(shop, encoder):
    late = ["p11", "p42", "p77"]
    there = Recommender(encoder, rng=0)
    there.fit_meta(shop.interactions.filter(~pl.col("item_id").is_in(late)), shop.items)
    model, shelf = there._state
    rows = torch.tensor([shelf.catalog.row_of[item] for item in late])
    assert shelf.space.cold[rows].all()

    texts = [there.text_of(item) for item in late]
    added = cold_rows(model, shelf, torch.from_numpy(encoder.encode(texts)))

    torch.testing.assert_close(added.item, shelf.space.item[rows], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(added.support, shelf.space.support[rows], rtol=1e-3, atol=1e-4)
    assert added.item[:, -2].all()


def test_the_demand_for_new_items_is_read_off_the_log(shop, encoder):
    log = shop.interactions.sort("timestamp")
    late = pl.col("item_id").hash(seed=1) % 6 == 0
    first = log.filter(late).unique("item_id", keep="first", maintain_order=True)  # one sale of each late arrival
    logs = {
        "wanted": pl.concat([log.filter(~late), log.filter(late)]).with_columns(timestamp=log["timestamp"]),
        "hardly wanted": pl.concat(
            [log.filter(~late), first.with_columns(timestamp=pl.lit(log["timestamp"].max(), log["timestamp"].dtype))]
        ),
        "no arrivals": log,
        "no clock": log.drop("timestamp"),
    }
    config = replace(SMALL, training=replace(SMALL.training, epochs=1))
    found = {}
    for name, frame in logs.items():
        report = Recommender(encoder, config=config, rng=0).fit_meta(frame, shop.items)
        found[name] = report.curve("cold/demand")[-1][1]
    assert found["wanted"] == found["no arrivals"] == found["no clock"] == 1.0
    assert found["hardly wanted"] == 0.4
