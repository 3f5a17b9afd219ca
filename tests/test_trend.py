"""The trend channel: what was popular when."""

import numpy as np
import polars as pl
import pytest
import torch

import mecold.space.channels.trend as trend
from mecold import Interaction
from mecold.space.clock import Clock
from tests.conftest import SMALL, word_vectors

CENTRES = torch.tensor([10.0, 20.0, 40.0], dtype=torch.float64)


def read(*times, persistence=0.5):
    when = torch.tensor(times, dtype=torch.float64)
    return Clock(CENTRES, persistence).reading(when)


def test_a_time_reads_the_two_nearest_bins_and_the_last_one_less_and_less():
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 0.25, 0.75], [0, 0, 1], [0, 0, 0.5], [0, 0, 0.25]]
    assert read(10.0, 15.0, 35.0, 40.0, 60.0, 80.0).tolist() == expected


def test_an_unknown_time_and_one_of_another_clock_read_nothing():
    assert read(float("nan"), -3.0).tolist() == [[0, 0, 0]] * 2
    assert read(4.0).tolist() == [[1, 0, 0]]


def test_vectors_are_shrunk_log_ratios():
    counts = torch.tensor([[8.0, 0.0], [0.0, 8.0], [2.0, 2.0], [0.0, 0.0]])
    scale = np.log1p([8, 8, 4, 0]).std()
    found = trend.vectors_of(counts)
    expected = np.log([[10 / 6, 2 / 6], [2 / 6, 10 / 6], [1, 1], [1, 1]]) / scale
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_persistence_tells_lasting_trends_from_noise():
    lasting = torch.tensor([[30.0] * 4 + [5.0] * 4, [5.0] * 4 + [30.0] * 4])
    hopping = torch.tensor([[30.0, 5.0] * 4, [5.0, 30.0] * 4])
    assert trend.persistence_of(lasting) > 0.6
    assert trend.persistence_of(hopping) == 0.0


def test_bins_hold_equally_many_interactions_and_need_enough_of_them():
    times = np.random.default_rng(0).gamma(2.0, 100.0, 4000)
    edges = trend.edges_of(times, 8)
    counts = trend.counts_by_time(np.arange(4000) % 7, times, edges, 7)
    assert counts.sum() == 4000
    assert counts.sum(0).tolist() == [500.0] * 8
    assert not len(trend.edges_of(times[:300], 8))
    assert not len(trend.edges_of(np.repeat([1.0, 2.0], 2000), 8))


def test_demand_for_new_items_is_read_off_the_last_fifth_of_a_log():
    items, times = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3, 0]), np.arange(10.0)
    # eight rows touch 0, 1, 2; of the last two one is on 3: a half of what is wanted for one of the four items that there are
    assert trend.demand_for_new(items, times, 5) == pytest.approx(0.5 / 0.25)
    assert trend.demand_for_new(items[:8], times[:8], 5) is None  # no item appears late
    assert trend.demand_for_new(items, np.zeros(10), 5) is None  # no interaction is later
    assert trend.demand_for_new(items[:0], times[:0], 5) is None


@pytest.fixture(scope="module")
def seasons():
    """A shop of two halves of a year: items 0-29 are wanted in the first, 30-59 in the second; nobody has any taste."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(600):
        start = rng.uniform(0, 100)
        pool = rng.permutation(30) + (30 if start >= 50 else 0)
        other = rng.permutation(30) + (0 if start >= 50 else 30)
        items = np.where(rng.random(9) < 0.9, pool[:9], other[:9])
        rows += [(user, int(item), 1e6 + start + 0.01 * place) for place, item in enumerate(dict.fromkeys(items))]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": range(60), "title": [f"thing {n}" for n in range(60)]})
    return log, items


def test_the_time_of_a_support_decides_what_is_popular(seasons, fit):
    log, items = seasons
    recommender = fit(log, items, SMALL, encoder=word_vectors(items["title"].to_list()))
    assert "trend" in recommender.info()["channels"]
    mixed = [5, 35]  # one of each season: nothing but the time tells
    for time, season in ((1e6 + 20.0, range(30)), (1e6 + 80.0, range(30, 60))):
        user = recommender.adapt_user([Interaction(item, time=time) for item in mixed])
        found = [one.item for one in recommender.recommend(user, k=10)]
        assert sum(item in season for item in found) >= 8
    unknown = recommender.adapt_user(mixed)
    batch = recommender.recommend_batch(
        pl.DataFrame({"user_id": [1, 1], "item_id": mixed, "timestamp": [1e6 + 80.0] * 2}), 10
    )
    assert sum(item >= 30 for item in batch["item_id"]) >= 8
    assert not np.array_equal(unknown.query, user.query)


def test_a_log_without_timestamps_has_no_trend(seasons, fit):
    log, items = seasons
    recommender = fit(log.drop("timestamp"), items, SMALL, encoder=word_vectors(items["title"].to_list()))
    assert "trend" not in recommender.info()["channels"]
