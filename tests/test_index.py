import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mecold import DataWarning, InvalidDataError
from mecold.space import approximate
from mecold.space.approximate import FaissIndex, make_index
from mecold.space.channel import Channel, Traits
from mecold.space.index import ExactIndex, Hidden, top_rows
from mecold.space.lists import Lists
from mecold.space.space import ItemSpace, UserVectors


def best(scores, k, banned=()):
    """Plain loop: rows by score, ties by row."""
    rows = [row for row in range(len(scores)) if row not in set(banned)]
    return sorted(rows, key=lambda row: (-scores[row], row))[:k]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 9999),
    items=st.sampled_from([1, 5, 100, 8192 + 77, 20_000]),
    k=st.sampled_from([1, 3, 10]),
    levels=st.sampled_from([2, 9, 10_000]),
)
def test_top_rows_are_the_sorted_ones_ties_by_row(seed, items, k, levels):
    scores = torch.from_numpy(np.random.default_rng(seed).integers(levels, size=(3, items)).astype(np.float32))
    values, places = top_rows(scores, k)
    for user in range(3):
        expected = best(scores[user].tolist(), k)
        assert places[user].tolist() == expected
        assert values[user].tolist() == scores[user, expected].tolist()


def world_of(vectors, queries):
    """An item space of these vectors with random neighbour lists, some short; and queries with two support rows each."""
    rng, items = torch.Generator().manual_seed(0), len(vectors)
    values = torch.rand(items, 3, generator=rng)
    values[::3, 2] = 0.0
    lists = Lists(torch.randint(items, (items, 3), generator=rng, dtype=torch.int32), values)
    channel = Channel.of("only", Traits(), vectors, vectors)
    space = ItemSpace({"only": channel}, lists, torch.ones(items), torch.zeros(items, dtype=torch.bool))
    rows, trust = torch.randint(items, (len(queries), 2), generator=rng), torch.rand(len(queries), 2, generator=rng)
    return space, UserVectors(queries, rows, 5 * trust)


@pytest.mark.parametrize("kind", ["auto", "cells", "flat", "hnsw", "IVF8,Flat"])
def test_every_index_gives_what_the_plain_search_gives(kind):
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(2000, 16)).astype(np.float32))
    queries = torch.from_numpy(rng.normal(size=(20, 16)).astype(np.float32))
    dead = torch.zeros(2000, dtype=torch.bool)
    dead[[3, 500]] = True
    hidden = [rng.choice(2000, size=5 * user, replace=False) for user in range(20)]
    space, query = world_of(vectors, queries)
    early = space.take(slice(1900))  # a hundred rows came later
    index = FaissIndex.build("auto", vectors[:1900]) if kind == "cells" else make_index(kind, early)

    found = index.search(space, dead, query, 10, Hidden.of(hidden))

    scores = (queries @ vectors.T).numpy()
    for user in range(20):
        for row, trust in zip(query.rows[user].tolist(), query.trust[user].tolist(), strict=True):
            for neighbour, value in zip(space.lists.rows[row].tolist(), space.lists.values[row].tolist(), strict=True):
                scores[user, neighbour] += trust * value
    same = 0
    for user, (rows, values) in enumerate(map(found.of, range(20))):
        expected = best(scores[user], 10, [*hidden[user].tolist(), 3, 500])
        assert len(rows) == len(set(rows.tolist())) == 10
        assert not set(rows.tolist()) & {*hidden[user].tolist(), 3, 500}
        np.testing.assert_allclose(values, scores[user, rows], rtol=1e-4, atol=1e-5)
        same += len(set(rows.tolist()) & set(expected))
        if kind in ("auto", "flat"):
            assert rows.tolist() == expected
    assert same >= {"auto": 200, "cells": 180, "flat": 200, "hnsw": 190, "IVF8,Flat": 60}[kind]


def test_what_is_left_comes_back_and_nothing_else():
    vectors = torch.eye(4)
    dead = torch.tensor([False, True, False, False])
    for index in (ExactIndex(), FaissIndex.build("flat", vectors)):
        space, query = world_of(vectors, torch.ones(1, 4))
        rows, _ = index.search(space, dead, query, 10, Hidden.of([np.array([2])])).of(0)
        assert sorted(rows.tolist()) == [0, 3]


def test_a_factory_string_that_faiss_refuses_is_explained():
    with pytest.raises(InvalidDataError, match=r"index='nonsense'.*'auto', 'flat', 'hnsw'"):
        make_index("nonsense", world_of(torch.eye(4), torch.ones(1, 4))[0])
    with pytest.raises(InvalidDataError, match="IVF64,Flat"):
        make_index("IVF64,Flat", world_of(torch.eye(4), torch.ones(1, 4))[0])


@pytest.mark.parametrize("share", [0.9, 0.4, 0.02])
def test_what_most_users_must_not_get_is_left_out_before_candidates_are_counted(share):
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(5000, 16)).astype(np.float32))
    space, query = world_of(vectors, torch.from_numpy(rng.normal(size=(30, 16)).astype(np.float32)))
    out = torch.from_numpy(rng.random(5000) > share)
    hidden = Hidden.of([rng.choice(5000, size=20, replace=False) for _ in range(30)])
    index = FaissIndex.build("auto", vectors)
    exact, found = (one.search(space, out, query, 10, hidden) for one in (ExactIndex(), index))
    assert found.valid.all() and not out[torch.from_numpy(found.rows)].any()
    assert np.mean([len(set(a) & set(b)) for a, b in zip(exact.rows, found.rows, strict=True)]) > 9
    for user, rows in enumerate(found.rows):
        assert not set(rows.tolist()) & set(hidden.rows[hidden.users == user].tolist())


@settings(max_examples=200, deadline=None)
@example(seed=174, disliked=False, k=5)
@given(seed=st.integers(0, 9999), disliked=st.booleans(), k=st.sampled_from([1, 5, 30]))
def test_a_flat_index_is_exact_with_lists_that_name_items_twice_and_items_that_came_later(seed, disliked, k):
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.integers(-3, 4, size=(900, 4)).astype(np.float32))
    space, query = world_of(vectors, torch.from_numpy(rng.integers(-2, 3, size=(3, 4)).astype(np.float32)))
    if disliked:
        query = UserVectors(
            query.vector, query.rows, torch.where(torch.tensor([True, False]), query.trust, -query.trust)
        )
    hidden = Hidden.of([rng.choice(900, size=own, replace=False) for own in (0, 3, 40)])
    out = torch.from_numpy(rng.random(900) < 0.05)
    index = FaissIndex.build("flat", vectors[:800])
    exact, found = (one.search(space, out, query, k, hidden) for one in (ExactIndex(), index))
    for user in range(3):
        (rows, scores), (again, same) = exact.of(user), found.of(user)
        assert len(set(again.tolist())) == len(again) == len(rows)
        np.testing.assert_allclose(same, scores, rtol=1e-4, atol=1e-4)


def test_auto_searches_large_catalogues_in_cells_and_says_so_where_it_cannot(monkeypatch):
    space, _ = world_of(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)), torch.ones(1, 8))
    assert isinstance(make_index("auto", space), ExactIndex)
    monkeypatch.setattr(approximate, "CROSSOVER", 400)
    found = make_index("auto", space)
    assert isinstance(found, FaissIndex) and found.covers == 500
    assert isinstance(make_index("exact", space), ExactIndex)

    def missing():
        raise ImportError("FAISS is not installed")

    monkeypatch.setattr(approximate, "faiss_library", missing)
    with pytest.warns(DataWarning, match=r"not installed.*500 items are searched exactly"):
        assert isinstance(make_index("auto", space), ExactIndex)
    with pytest.raises(ImportError, match="not installed"):
        make_index("flat", space)


def test_equally_long_vectors_keep_their_order_by_inner_product():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(50, 5)).astype(np.float32) * rng.exponential(size=(50, 1)).astype(np.float32)
    wide = approximate._equally_long(data)
    assert wide.shape == (50, 32) and np.allclose(
        np.linalg.norm(wide, axis=1), np.linalg.norm(data, axis=1).max(), atol=1e-4
    )
    query = np.pad(rng.normal(size=5).astype(np.float32), (0, 27))
    nearest = np.argsort(np.linalg.norm(wide - query, axis=1))
    assert np.array_equal(nearest[:5], np.argsort(-data @ query[:5])[:5])
