"""A channel is a value: a new one is one file and one line, and is learned, saved and explained like the others."""

import ast
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mecold import InvalidDataError, Recommender
from mecold.data.rows import appended
from mecold.space.channel import Channel, Traits
from mecold.space.channels import MAKERS

PAGE = (Path(__file__).parents[1] / "docs" / "channels.md").read_text()
TOY = re.search(r"```python\n(.*?)```", PAGE, re.S)[1]  # type: ignore[index]


@pytest.fixture
def toy(monkeypatch):
    made: dict[str, object] = {}
    exec(compile(ast.parse(TOY), "length.py", "exec"), made)
    monkeypatch.setitem(MAKERS, "length", made["LENGTH"])


def test_the_channel_of_the_page_is_learned_saved_and_given_to_new_items(toy, shop, fit, encoder, tmp_path):
    assert len(TOY.splitlines()) <= 30
    recommender = fit(shop.interactions, shop.items)
    assert recommender.info()["channels"]["length"] == 1
    model, _ = recommender._state
    assert "length" in model.head.names
    start = MAKERS["length"].traits.start
    assert (model.head.prior.scale[:, model.head.column["length"]] != start).any()
    recommender.add_items(pl.DataFrame({"item_id": ["fresh"], "title": ["Arbor Plain Gel Pen, Black"]}))
    row = recommender._state[1].catalog.row("fresh")
    assert float(recommender._state[1].space["length"].item[row]) != 0
    recommender.save(tmp_path / "m")
    loaded = Recommender.load(tmp_path / "m", encoder=encoder)
    user = recommender.adapt_user(["p1", "p2"])
    assert loaded.recommend(user, k=20) == recommender.recommend(user, k=20)


def test_a_state_made_on_other_axes_is_refused(fitted):
    """The head is free of the basis of the factors; a state is not."""
    from dataclasses import replace

    model, shelf = fitted._state
    other = Recommender(rng=0)
    other._state = (replace(model, axes="others"), shelf)
    with pytest.raises(InvalidDataError, match="Call adapt_user again"):
        other.recommend(fitted.adapt_user(["p1"]))


def test_what_is_appended_is_not_seen_by_earlier_holders_and_copies_where_two_append():
    first = torch.arange(6.0).reshape(3, 2)
    second = appended(first, torch.ones(1, 2))
    third = appended(second, torch.full((2, 2), 2.0))
    other = appended(second, torch.full((2, 2), 3.0))  # another successor of the same rows
    assert second.tolist() == [[0, 1], [2, 3], [4, 5], [1, 1]]
    assert third[4:].tolist() == [[2, 2]] * 2 and other[4:].tolist() == [[3, 3]] * 2
    assert third.data_ptr() == second.data_ptr() != other.data_ptr()
    assert torch.equal(third[:4], second) and torch.equal(other[:4], second)


def test_a_shared_side_stays_one_tensor_through_moves_and_appends():
    side = torch.randn(4, 3)
    channel = Channel.of("x", Traits(agrees=True), side, side)
    for changed in (channel.take(torch.tensor([2, 0])), channel.followed_by(channel), channel.to(torch.device("cpu"))):
        assert changed.shared
        torch.testing.assert_close(changed.norm, changed.support.norm(dim=1))


def test_the_same_user_has_the_same_state_bit_for_bit_through_every_door(fitted, shop):
    """A list, a frame of one user and a frame of many; long histories, dislikes, weights and times among them."""
    from mecold import Interaction

    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"p{i}", t, w, y) for u in range(60)
            for t, (i, w, y) in enumerate(zip(rng.permutation(300)[: rng.integers(1, 45)], rng.uniform(0.5, 2, 45),
                                              rng.choice([1.0, -1.0, 0.5], 45), strict=False))]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "weight", "label"], orient="row")
    states = fitted.adapt_users(frame)
    assert max(state.shots for state in states.values()) > 20
    for user, part in frame.group_by("user_id", maintain_order=True):
        given = [Interaction(i, y, float(t), w) for _, i, t, w, y in part.iter_rows()]
        alone = fitted.adapt_users(part)
        assert fitted.adapt_user(given) == states[user[0]] == alone[user[0]]
        ours = fitted.recommend(states[user[0]], k=5)
        batch = fitted.recommend_batch(part, k=5)
        assert [one.item for one in ours] == batch["item_id"].to_list()


def test_labels_of_a_frame_are_those_of_a_list(fitted):
    from mecold import Interaction

    frame = pl.DataFrame({"user_id": ["a", "a"], "item_id": ["p1", "p2"], "position": [0, 1], "label": [0.5, -1.0]})
    assert fitted.adapt_users(frame)["a"] == fitted.adapt_user([Interaction("p1", 0.5), Interaction("p2", -1.0)])


def test_counts_and_statistics_are_kept_and_saved(fitted, shop, tmp_path):
    shelf = fitted._state[1]
    touched = shop.interactions.unique(["user_id", "item_id"])["item_id"].value_counts()
    for item, count in touched.head(20).iter_rows():
        assert float(shelf.space.counts[shelf.catalog.row(item)]) == count
    fitted.save(tmp_path / "m")
    kept, loaded = fitted._archive, Recommender.load(tmp_path / "m")._archive
    assert loaded.ids.equals(kept.ids)
    assert loaded.log.users.equals(kept.log.users)
    for name in ("items", "offsets", "labels", "times"):
        np.testing.assert_array_equal(getattr(loaded.log, name), getattr(kept.log, name))
