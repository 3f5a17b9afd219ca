"""Items that nobody has touched: lookalikes, stand-ins, and how high they come, against plain loops and planted tastes."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold import Recommender
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.factors import FactorPair
from mecold.lookalikes import NEAREST, SHARPNESS, TRUST, Lookalikes, directions
from mecold.meta.cold import cold_episodes
from mecold.meta.episodes import Opening
from mecold.neighbours import Neighbours
from mecold.tower import ItemTower


def catalogue(seed, items):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, 3)).astype(np.float32)
    vectors[rng.random(items) < 0.2] = 0.0  # no text
    return rng, torch.from_numpy(vectors)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), items=st.integers(1, 45))
def test_a_stand_in_is_the_weighted_mean_of_the_nearest_usable_texts(seed, items):
    rng, vectors = catalogue(seed, items)
    texts = directions(vectors)
    usable = torch.from_numpy(rng.random(items) < 0.8)
    counts = torch.from_numpy(rng.integers(0, 30, items).astype(np.float32))
    table = torch.from_numpy(rng.normal(size=(items, 2)).astype(np.float32))

    alike = Lookalikes.find(texts, texts, usable, torch.arange(items))
    found = alike.mean(table, counts).numpy()

    for item in range(items):
        others = [o for o in range(items) if o != item and usable[o] and texts[o].any() and texts[item].any()]
        cosine = {o: float(texts[item] @ texts[o]) for o in others}
        best = sorted(others, key=lambda o: -cosine[o])[:NEAREST]
        weight = {o: math.exp(SHARPNESS * (cosine[o] - 1)) * float(counts[o] / (counts[o] + TRUST)) for o in best}
        total = sum(weight.values())
        expected = sum((w * table[o].numpy() for o, w in weight.items()), np.zeros(2)) / max(total, 1e-12)
        np.testing.assert_allclose(found[item], expected, atol=1e-3)


def test_directions_are_centred_on_the_items_that_have_a_text():
    vectors = torch.tensor([[3.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert directions(vectors).tolist() == [[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]


def test_a_cold_item_has_the_direction_of_its_twin_at_a_typical_size_and_a_warm_one_keeps_its_own():
    rng, vectors = catalogue(1, 30)
    vectors[0] = vectors[5] = torch.tensor([9.0, -7.0, 4.0])  # far from all others: its one lookalike
    counts = torch.from_numpy(rng.integers(1, 50, 30).astype(np.float32))
    counts[0] = 0
    pair = FactorPair(*(torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32)) for _ in range(2)))
    tower = ItemTower(3, 2, 4)
    tower.start_from(vectors, counts)
    tower.cold_gain.copy_(torch.tensor([2.0, 3.0, 1.0, 0.5]))
    alike = Lookalikes.find(directions(vectors), directions(vectors), counts > 0, torch.arange(30))
    lists = Neighbours(torch.full((30, 1), 5, dtype=torch.int32), torch.ones(30, 1))

    with torch.no_grad():
        space = tower.space(tower.frame({"symmetric": pair}, lists, alike, counts), vectors)

    torch.testing.assert_close(space.item[5, :4], pair.item[5])
    torch.testing.assert_close(space.support[0, :4], pair.support[5], rtol=0.02, atol=0.02)
    torch.testing.assert_close(space.item[0, :4], 2 * pair.item[5], rtol=0.02, atol=0.02)
    torch.testing.assert_close(space.item[0, 4:6], 3 * tower.text(vectors)[5])
    assert float(space.popularity[0]) == pytest.approx(0.5 * float(tower.popularity(counts)[5]), abs=0.02)
    assert space.item[:, -2].tolist() == [1.0] + 29 * [0.0]
    assert space.cold.nonzero()[:, 0].tolist() == [0]
    torch.testing.assert_close(tower.counts(tower.popularity(counts)), counts, rtol=1e-4, atol=1e-3)
    assert not space.near.values[0].any()
    torch.testing.assert_close(space.gram, space.item.T @ space.item / 30, rtol=1e-4, atol=1e-5)


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
        if len(support) >= 3 and any(new[row[0]] for row in liked):
            expected.append((support, liked))
    assert len(found) == len(expected) > 20
    for user, (support, liked) in enumerate(expected):
        mask = found.support.mask[user]
        assert found.support.rows[user][mask].tolist() == [row[0] for row in support]
        assert found.support.labels[user][mask].tolist() == [row[1] for row in support]
        assert float(found.support.time[user]) == support[-1][2]
        assert found.items[user][found.after[user]].tolist() == [row[0] for row in liked if row[2] > support[-1][2]]
        assert found.items[user][found.new[user]].tolist() == [row[0] for row in liked if new[row[0]]]


def test_new_items_are_ranked_above_plain_content_and_get_room_in_the_full_list(shop, encoder):
    dataset = Dataset.read(shop.interactions, shop.items, name="shop", encoder=encoder)
    report = evaluate("mecold,content,popularity", dataset, protocol="item", seeds=(0,)).data
    scores = {name: one["mean"]["10"] for name, one in report["systems"].items()}
    assert scores["mecold"]["ndcg@10"]["mean"] > 1.05 * scores["content"]["ndcg@10"]["mean"]
    assert scores["mecold"]["full:ndcg@10"]["mean"] > scores["popularity"]["full:ndcg@10"]["mean"] + 0.02


def test_an_item_added_later_stands_where_it_would_have_stood_had_it_been_there(shop, encoder):
    late = ["p11", "p42", "p77"]
    log = shop.interactions.filter(~pl.col("item_id").is_in(late))
    there = Recommender(encoder, rng=0)
    there.fit_meta(log, shop.items)
    added = Recommender(encoder, rng=0)
    added.fit_meta(log, shop.items.filter(~pl.col("item_id").is_in(late)))
    added.add_items(shop.items.filter(pl.col("item_id").is_in(late)))
    for item in late:
        near = [{one.item for one in made.similar_items(item, k=10)} for made in (there, added)]
        assert len(near[0] & near[1]) >= 5
