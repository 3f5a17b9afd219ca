"""Neighbour lists against plain loops."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold.space.lists import SHRINK, Lists, fit_lists
from mecold.space.lookalikes import SHARPNESS, Lookalikes
from mecold.space.statistics import Statistics


def test_the_lists_hold_the_largest_shrunk_cosines():
    rng = np.random.default_rng(0)
    popularity = np.arange(1, 16) / 120
    histories = [rng.choice(15, rng.integers(1, 8), replace=False, p=popularity).tolist() for _ in range(60)]
    weight, both = Counter(), Counter()
    for history in histories:
        weight.update({item: 1 / len(history) for item in history})
        both.update({pair: 1 / len(history) for pair in permutations(history, 2)})
    cosine = {(i, j): shared / ((weight[i] * weight[j]) ** 0.5 + SHRINK) for (i, j), shared in both.items()}

    items, offsets = np.concatenate(histories), np.cumsum([0, *map(len, histories)])
    stats = Statistics.of(items, offsets, 16)
    near = fit_lists(stats.recent(), 5)

    squares = []
    for item in range(16):
        best = sorted((pair for pair in cosine if pair[0] == item), key=lambda pair: (-cosine[pair], pair[1]))[:5]
        found = {int(row): float(v) for row, v in zip(near.rows[item], near.values[item], strict=True) if v}
        assert set(found) == {pair[1] for pair in best}
        squares.append(sum(cosine[pair] ** 2 for pair in best))
        for pair in best:
            assert found[pair[1]] / near.values.max() == pytest.approx(cosine[pair] / max(cosine.values()), rel=1e-4)
    assert squares[15] == 0  # nobody has touched it
    assert (near.values**2).sum(1)[:15].mean() == pytest.approx(1.0, rel=1e-4)


@st.composite
def worlds(draw):
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    items, width, users, shots = (draw(st.integers(low, 6)) for low in (1, 0, 1, 0))
    rows = np.argsort(rng.random((items, items)), axis=1)[:, :width].astype(np.int32)
    values = (rng.random(rows.shape) * (rng.random(rows.shape) < 0.7)).astype(np.float32)
    support = torch.from_numpy(rng.integers(items, size=(users, shots)))
    trust = torch.from_numpy(rng.normal(size=(users, shots)).astype(np.float32))
    return Lists(torch.from_numpy(rows), torch.from_numpy(values)), support, trust


def by_hand(near, support, trust):
    scores = np.zeros((len(support), len(near.rows)))
    for user in range(len(support)):
        for row, weight in zip(support[user].tolist(), trust[user].tolist(), strict=True):
            for neighbour, value in zip(near.rows[row].tolist(), near.values[row].tolist(), strict=True):
                scores[user, neighbour] += weight * value
    return scores


@settings(max_examples=100, deadline=None)
@given(worlds(), st.data())
def test_scores_of_all_of_some_and_of_own_items_are_the_sum_over_lists(world, data):
    near, support, trust = world
    expected = by_hand(near, support, trust)
    items = len(near.rows)
    np.testing.assert_allclose(near.add_to(torch.ones(expected.shape), support, trust), expected + 1, atol=1e-5)
    some = data.draw(st.lists(st.integers(0, items - 1), min_size=1, max_size=8))
    np.testing.assert_allclose(near.among(torch.tensor(some), support, trust), expected[:, some], atol=1e-5)
    own = torch.tensor([data.draw(st.permutations(range(items))) for _ in support])
    np.testing.assert_allclose(near.of(own, support, trust), np.take_along_axis(expected, own.numpy(), 1), atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(worlds(), st.data())
def test_rows_that_leave_take_their_entries_along_and_the_rest_stays(world, data):
    near, support, trust = world
    items = len(near.rows)
    gone = torch.tensor(data.draw(st.lists(st.booleans(), min_size=items, max_size=items)))
    emptied = torch.where(gone[support], 0.0, trust)
    expected = np.where(gone[None], 0.0, by_hand(near, support, emptied))
    np.testing.assert_allclose(by_hand(near.without(gone), support, trust), expected, atol=1e-6)
    kept = (~gone).nonzero()[:, 0]
    if len(kept):
        place = torch.zeros(items, dtype=torch.long)
        place[kept] = torch.arange(len(kept))
        packed = by_hand(near.taken(kept), place[support], emptied)
        np.testing.assert_allclose(packed, expected[:, kept.numpy()], atol=1e-6)
    to = torch.tensor(data.draw(st.permutations(range(items))))
    np.testing.assert_allclose(
        by_hand(near.moved(to), support, trust)[:, to.numpy()], by_hand(near, support, trust), atol=1e-6
    )


def test_lookalikes_of_many_items_are_nearly_the_nearest(monkeypatch):
    """In cells alone, of grouped texts: nearly all of the weight is found, and nothing that may not stand in."""
    draws = torch.Generator().manual_seed(0)
    groups = torch.randn(300, 32, generator=draws)
    texts = groups[torch.randint(300, (12_000,), generator=draws)] + 0.7 * torch.randn(12_000, 32, generator=draws)
    texts = torch.nn.functional.normalize(texts, dim=1)
    texts[5] = 0.0
    usable = (torch.rand(12_000, generator=draws) < 0.7) & (texts != 0).any(1)
    asked = texts[:2_000]
    exact = Lookalikes.find(asked, texts, usable)
    monkeypatch.setattr("mecold.space.lookalikes.EXACT", 1_000)
    found = Lookalikes.find(asked, texts, usable)
    assert not torch.equal(found.rows, exact.rows)  # it was another way
    assert bool(usable[found.rows][found.likeness > 0].all())
    assert not found.likeness[5].any()
    true = torch.exp(SHARPNESS * ((asked[:, None] * texts[found.rows]).sum(2) - 1))
    torch.testing.assert_close(found.likeness[6:], true[6:], rtol=1e-3, atol=1e-5)
    share = found.likeness.sum(1)[6:] / exact.likeness.sum(1)[6:]
    assert share.mean() > 0.97
    assert share.max() < 1.001
