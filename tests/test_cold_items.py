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
from mecold.data.histories import Histories
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.meta.newcomers import Full, bonus_of, newcomer_episodes
from mecold.space.basis import Basis
from mecold.space.channel import Channel, Traits, spans_of
from mecold.space.channels import MAKERS
from mecold.space.lists import Lists
from mecold.space.lookalikes import NEAREST, SHARPNESS, TRUST, Lookalikes
from mecold.space.making import Material, made_of
from mecold.space.settings import FactorConfig
from mecold.space.space import lookalikes_of, newcomers, with_newcomers, with_text
from mecold.space.statistics import Statistics
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

    alike = Lookalikes.find(texts, texts, usable & texts.any(1))
    found = alike.mean(table, counts).numpy()

    for item in range(items):
        others = [o for o in range(items) if usable[o] and texts[o].any() and texts[item].any()]
        cosine = {o: float(texts[item] @ texts[o]) for o in others}
        best = sorted(others, key=lambda o: -cosine[o])[:NEAREST]
        weight = {o: math.exp(SHARPNESS * (cosine[o] - 1)) * float(counts[o] / (counts[o] + TRUST)) for o in best}
        total = sum(weight.values())
        expected = sum((w * table[o].numpy() for o, w in weight.items()), np.zeros(2)) / max(total, 1e-12)
        np.testing.assert_allclose(found[item], expected, atol=1e-3)


def small_world(**gains):
    """Thirty items: 0 is new, and its one lookalike is 5; 1 is new and has no text; 6 has no symmetric factors."""
    rng, vectors = catalogue(1, 30)
    vectors[0] = vectors[5] = torch.tensor([90.0, -70.0, 40.0])  # far from all others
    vectors[1] = 0.0
    counts = torch.from_numpy(rng.integers(1, 50, 30).astype(np.float32))
    counts[[0, 1]] = 0
    basis = replace(Basis.fit(vectors, counts, 3), new_gain=gains)
    sides = {
        name: [torch.from_numpy(rng.normal(size=(30, 4)).astype(np.float32)) for _ in range(2)]
        for name in ("symmetric", "trend")
    }
    sides["symmetric"][0][6] = sides["symmetric"][1][6] = 0.0
    return basis, sides, vectors, counts


def space_of(basis, sides, vectors, counts, dropped=None, alike=None):
    text, popularity = basis.text(vectors), basis.popularity(counts)[:, None]
    first = sides["symmetric"][0][:, :2].clone()
    made = {
        "symmetric": Channel.of("symmetric", Traits(agrees=True, grows=True), *sides["symmetric"]),
        "trend": Channel.of("trend", Traits(reads="time"), *sides["trend"]),
        "text": Channel.of("text", MAKERS["text"].traits, text, text),
        "alike": Channel.of("alike", MAKERS["alike"].traits, first, torch.zeros_like(first)),
        "new": Channel.of("new", MAKERS["new"].traits, None, torch.zeros(30, 1)),
        "popularity": Channel.of("popularity", MAKERS["popularity"].traits, None, popularity),
    }
    lists = Lists(torch.full((30, 1), 5, dtype=torch.int32), torch.ones(30, 1))
    return with_newcomers(made, lists, counts, basis, dropped, alike)


def test_a_new_item_has_what_its_twin_has_and_a_known_one_keeps_its_own():
    basis, sides, vectors, counts = small_world(symmetric=2.0, trend=1.5, text=3.0, alike=0.7, popularity=0.5)

    space = space_of(basis, sides, vectors, counts)

    close = {"rtol": 0.02, "atol": 0.02}
    support, item = sides["symmetric"]
    torch.testing.assert_close(space["symmetric"].item[5], item[5])
    torch.testing.assert_close(space["symmetric"].support[0], support[5], **close)
    torch.testing.assert_close(space["symmetric"].norm, space["symmetric"].support.norm(dim=1))
    torch.testing.assert_close(space["symmetric"].item[0], 2 * item[5], **close)
    torch.testing.assert_close(space["trend"].item[0], 1.5 * sides["trend"][1][5], **close)
    torch.testing.assert_close(space["text"].item[0], 3 * basis.text(vectors)[5])
    torch.testing.assert_close(space["text"].support[0], basis.text(vectors)[5])
    torch.testing.assert_close(space["alike"].item[0], 0.7 * item[5, :2], **close)
    # what every item says of its user is what only new items are found by
    torch.testing.assert_close(space["alike"].support, space["symmetric"].support[:, :2])
    assert not space["alike"].item[2:].any()
    twin = float(basis.popularity(counts)[5])
    assert float(space.popularity[0]) == pytest.approx(min(twin, 0.5 * twin), abs=0.02)
    assert not any(space[name].item[1].any() for name in ("symmetric", "trend", "text", "alike", "new"))
    assert float(space.popularity[1]) == float(basis.popularity(torch.zeros(1))[0])
    assert space["new"].item[:, 0].tolist() == [1.0] + 29 * [0.0]
    assert space.new.nonzero()[:, 0].tolist() == [0, 1]
    assert torch.equal(space.counts, counts)  # kept, not guessed back
    assert not space.lists.values[0].any()


def test_a_new_text_moves_the_text_of_a_known_item_alone():
    gains = dict.fromkeys(("symmetric", "trend", "text", "alike", "popularity"), 3.0)
    basis, sides, vectors, counts = small_world(**gains)
    old = space_of(basis, sides, vectors, counts)
    text = basis.text(vectors[8:9])
    made = with_text(old.take(torch.tensor([7])), newcomers(old, ~old.new, text, basis))
    for name, channel in made.channels.items():
        for side in ("support", "item"):
            before, after = getattr(old[name], side), getattr(channel, side)
            if before is not None:
                torch.testing.assert_close(after[0], text[0] if name == "text" else before[7])


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
def test_channels_lie_side_by_side_and_new_items_have_columns_of_the_first_factors(factors, alike):
    made = {name: Channel.of(name, MAKERS[name].traits, *2 * [torch.ones(3, width)]) for name, width in factors.items()}
    counts, basis = torch.ones(3), Basis.fit(torch.eye(3, 6), torch.ones(3), 6)
    rest = {name: maker for name, maker in MAKERS.items() if name in ("text", "alike", "new", "popularity")}
    none = FactorConfig(symmetric_rank=0, directed_rank=0)
    rows = np.arange(3)
    stats = Statistics.of(rows, np.array([0, 3]), 3)
    material = Material(
        stats, counts, torch.ones(3, 6), basis, none, rows, np.empty(0), 0.0, torch.Generator(), None, made
    )
    channels = made_of(rest, material)
    assert [*channels] == [*factors, "text", *(["alike"] if alike else []), "new", "popularity"]
    places = [place for span in spans_of(channels).values() for place in range(span.start, span.stop)]
    assert places == list(range(sum(channel.width for channel in channels.values())))
    assert alike == (channels["alike"].width if alike else 0)


def test_a_channel_is_averaged_over_the_lookalikes_that_have_it():
    basis, sides, vectors, counts = small_world()
    vectors[6] = vectors[5]  # a second twin, without symmetric factors
    space = space_of(basis, sides, vectors, counts)
    torch.testing.assert_close(space["symmetric"].support[0], sides["symmetric"][0][5], rtol=0.02, atol=0.02)
    trust = counts[5:7] / (counts[5:7] + TRUST)
    mean = (trust[:, None] * sides["trend"][1][5:7]).sum(0) / trust.sum()
    torch.testing.assert_close(space["trend"].item[0], mean, rtol=0.02, atol=0.02)


def test_a_space_is_the_same_when_the_lookalikes_are_known_before():
    basis, sides, vectors, counts = small_world()
    dropped = torch.arange(30) % 4 == 2
    alike = lookalikes_of(basis.text(vectors), dropped | (counts == 0))
    plain, known = (space_of(basis, sides, vectors, counts, dropped, given) for given in (None, alike))
    every = torch.arange(30)
    assert torch.equal(known.vectors(every), plain.vectors(every))
    assert torch.equal(known["symmetric"].support, plain["symmetric"].support)
    other = replace(alike, rows=alike.rows.flip(0))
    assert not torch.equal(space_of(basis, sides, vectors, counts, dropped, other).vectors(every), plain.vectors(every))


def test_newcomer_episodes_are_the_first_known_items_and_the_new_ones_that_were_liked():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 25, 60)
    rows = np.array([np.pad(rng.permutation(50)[:n], (0, 25 - n)) for n in lengths])
    labels = np.where(rng.random(rows.shape) < 0.8, 1.0, -1.0).astype(np.float32)
    new = rng.random(50) < 0.3
    times = np.arange(rows.size, dtype=float).reshape(rows.shape)
    mask = np.arange(25) < lengths[:, None]
    users = Histories.padded(rows[mask], lengths, labels=labels[mask], times=times[mask])

    found = newcomer_episodes(users, torch.from_numpy(new), 4, 3)

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

    bonus, share = bonus_of([full], cost, most)
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
    assert bonus_of([full], 0.05, 1.0) == (0.0, 0.0)


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
    rows = torch.tensor([shelf.catalog.row(item) for item in late])
    assert shelf.space.new[rows].all()

    text = model.basis.text(
        torch.from_numpy(encoder.encode([there.text_of(item) for item in late])).to(shelf.space.device)
    )
    added = newcomers(shelf.space, ~(shelf.space.new | shelf.dead), text, model.basis)

    for name, channel in added.channels.items():
        for side in ("support", "item"):
            if (found := getattr(channel, side)) is not None:
                torch.testing.assert_close(found, getattr(shelf.space[name], side)[rows], rtol=1e-3, atol=1e-4)
    assert added["new"].item.all()


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
