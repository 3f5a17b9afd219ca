"""A shop without a log, and things that are described in words."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold import (
    EncoderError,
    Interaction,
    InvalidDataError,
    MetaConfig,
    ModelFileError,
    Recommender,
    UnknownItemError,
    UserState,
)
from mecold.day_one import BUILT_IN
from mecold.heads.preference import KNOTS
from mecold.space.lists import lists_of_texts
from tests.conftest import SMALL

PEN, TENT = "Arbor Plain Gel Pen, Black", "Fennick Neon Tent, Rose"


@pytest.fixture(scope="module")
def opened(shop, encoder):
    return Recommender.from_items(shop.items, encoder=encoder, config=SMALL)


@pytest.fixture(scope="module")
def with_pen(fitted, encoder, tmp_path_factory):
    """The fitted model with an item that has the pen's text."""
    folder = tmp_path_factory.mktemp("pen") / "model"
    fitted.save(folder)
    own = Recommender.load(folder, encoder=encoder)
    own.add_items(pl.DataFrame({"item_id": ["pen"], "title": [PEN]}))
    return own


# ---- things that are described


@settings(max_examples=20, deadline=None)
@given(before=st.lists(st.integers(0, 299), max_size=4), after=st.lists(st.integers(0, 299), max_size=22))
def test_a_text_is_read_as_a_new_item_with_that_text_would_be(fitted, with_pen, before, after):
    """Wherever it stands among the items, up to the 20 newest that are read."""
    head, tail = ([f"p{n}" for n in part] for part in (before, after))
    told = fitted.adapt_user([*head, Interaction(text=PEN), *tail])
    added = with_pen.adapt_user([*head, "pen", *tail])
    assert np.array_equal(told.query, added.query)
    assert told.shots == added.shots
    at = added.seen.index("pen")
    assert told.seen == (*added.seen[:at], *added.seen[at + 1 :])
    assert np.array_equal(told.trust, np.delete(added.trust, at))
    assert added.trust[at] == 0 or with_pen.recommend(added, k=3)[0].score == fitted.recommend(told, k=3)[0].score


def test_labels_weights_and_times_of_a_text_count(fitted, with_pen):
    def both(item, text):
        for how in ({"label": -1.0}, {"weight": 4.0}, {"label": 0.0}):
            rows = [Interaction("p1", time=1.0), Interaction("p2", time=3.0)]
            yield (
                fitted.adapt_user([*rows, Interaction(text=text, time=2.0, **how)]).query,
                with_pen.adapt_user([*rows, Interaction(item, time=2.0, **how)]).query,
            )

    assert all(np.array_equal(told, added) for told, added in both("pen", PEN))


def test_what_is_like_a_text_is_like_a_new_item_with_that_text(fitted, with_pen):
    told = fitted.similar_items(text=PEN, k=300)
    added = with_pen.similar_items("pen", k=300)
    assert told == added
    basket = fitted.similar_items(["p1", "p2"], k=298, text=f"  {PEN}\n")  # white space is that of a catalogue's texts
    assert [one.item for one in basket] == [one.item for one in with_pen.similar_items(["p1", "p2", "pen"], k=298)]
    assert fitted.similar_items(text=PEN, k=3, exclude=[told[0].item]) == told[1:4]
    assert fitted.similar_items(text=PEN, among=["p1", "p5"])[0].item in ("p1", "p5")


def test_asking_adds_nothing(fitted):
    before = fitted.info()
    fitted.similar_items(text=TENT)
    fitted.adapt_user([Interaction(text=TENT), Interaction(text=PEN)])
    assert fitted.info() == before
    assert len(fitted.item_ids()) == 300


def test_a_state_with_texts_comes_back_bit_for_bit_and_stays_small(fitted):
    plain = fitted.adapt_user(["p1", "p2"])
    user = fitted.adapt_user(["p1", Interaction(text=PEN), "p2", Interaction(text=TENT), Interaction(text=PEN)])
    assert user.seen == ("p1", "p2")
    assert user.shots == 4  # the same text again is the same thing again
    for again in (UserState.from_json(user.to_json()), UserState.from_bytes(user.to_bytes())):
        assert again == user
        assert fitted.recommend(again, k=5) == fitted.recommend(user, k=5)
    assert len(user.to_bytes()) < len(plain.to_bytes()) + 8
    assert not np.array_equal(user.query, plain.query)


def test_a_text_has_its_part_in_an_explanation(fitted):
    history = ["p1", Interaction(text=PEN), "p2"]
    why = fitted.explain(history, "p9")
    assert {name for name, _ in why.contributions} == {"p1", "p2", PEN}
    assert why.base + sum(part for _, part in why.contributions) == pytest.approx(why.score, abs=1e-4)
    assert why.score == pytest.approx(float(fitted.scores(fitted.adapt_user(history), ["p9"])[0]), abs=1e-4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Interaction(text=" \n"), "Row 0 of the history has the text"),
        (Interaction(text=3), "type int"),  # type: ignore[arg-type]
        (Interaction("p1", text=PEN), r"and the id 'p1' too; pass one of both"),
        (Interaction(text=PEN, rating=4.0), "ratings are read of items alone: say label="),
        (Interaction(text=PEN, label=3.0), "must have a finite label"),
        (Interaction(), "which is no item id"),
    ],
)
def test_bad_descriptions_are_refused(fitted, row, message):
    with pytest.raises(InvalidDataError, match=message):
        fitted.adapt_user([row])


def test_what_else_cannot_be_asked_is_refused(fitted, tmp_path):
    with pytest.raises(InvalidDataError, match="similar_items has the text ' '"):
        fitted.similar_items(text=" ")
    with pytest.raises(InvalidDataError, match=r"or pass text="):
        fitted.similar_items()
    with pytest.raises(EncoderError, match="no precomputed vector"):
        fitted.similar_items(text="never seen")
    with pytest.raises(UnknownItemError, match="1 of the user's 1 items"):
        fitted.adapt_user([Interaction(text=PEN), "nope"])
    assert fitted.adapt_user([Interaction(text=PEN), "nope"], on_unknown="drop").seen == ("nope",)
    fitted.save(tmp_path / "model")
    with pytest.raises(EncoderError, match="fitted with the encoder 'words:48'"):
        Recommender.load(tmp_path / "model").adapt_user([Interaction(text=PEN)])


# ---- the first day


def test_it_says_what_it_is_until_the_first_fit(shop, encoder, fitted):
    own = Recommender.from_items(shop.items, encoder=encoder, config=SMALL, rng=0)
    info = own.info()
    assert info["day_one"]
    assert info["items"] == info["cold_items"] == 300
    assert info["notes"][0].startswith("No log of this shop has been read")
    assert "numbers averaged over other shops" in info["notes"][0]
    report = own.fit_meta(shop.interactions, shop.items)
    assert not own.info()["day_one"]
    assert not any("No log" in note for note in report.notes)
    assert own.info()["model"] == fitted.info()["model"]  # nothing is left of the first day


def test_scores_are_texts_and_their_lists_as_learned_elsewhere(opened, shop, encoder):
    """Against the formula, written out."""
    config, catalog = opened.config, opened._state[1].catalog
    vectors = encoder.encode(catalog.texts).astype(np.float64)
    centred = vectors - vectors.mean(0)
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    axes, variance = axes[:, ::-1][:, : config.text_rank], variance[::-1][: config.text_rank]
    text = centred @ (axes * variance**-0.25)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    cosine = text @ text.T
    lists = np.exp(6 * (cosine - 1))
    np.fill_diagonal(lists, 0)
    kept = np.sort(lists, 1)[:, -config.factors.neighbours][:, None]
    lists = np.where(lists >= kept, lists, 0)
    lists /= np.sqrt((lists**2).sum(1).mean())
    support, at = ["p9", "p4", "p7"], KNOTS.index(3)
    rows = catalog.rows(support, "the items")
    fade = np.exp([BUILT_IN.fade[KNOTS.index(age)] for age in (2, 1, 0)])
    expected = np.exp(BUILT_IN.text[at]) * cosine[rows].sum(0) + np.exp(BUILT_IN.lists[at]) * fade @ lists[rows]
    found = opened.scores(opened.adapt_user(support), catalog.ids.to_list())
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_a_prior_lends_its_numbers_for_texts_and_lists_and_no_others(fitted, shop, encoder, tmp_path):
    fitted.save(tmp_path / "prior")
    here = Recommender.from_items(shop.items, prior=fitted, encoder=encoder, config=SMALL)
    there = Recommender.from_items(shop.items, prior=tmp_path / "prior", encoder=encoder, config=SMALL)
    assert here.info() == there.info()
    assert fitted.info()["model"] in here.info()["notes"][0]
    head, prior = here._state[0].head, fitted._state[0].head
    for name in ("text", "lists"):
        assert torch.equal(head.prior.scale[:, head.column[name]], prior.prior.scale[:, prior.column[name]])
        assert torch.equal(head.gains.gain[:, head.column[name]], prior.gains.gain[:, prior.column[name]])
    assert not head.gains.step.any()
    builtin = Recommender.from_items(shop.items, encoder=encoder, config=SMALL)
    assert here.info()["model"] != builtin.info()["model"]


def test_it_is_saved_loaded_and_changed_like_any_other(opened, encoder, tmp_path):
    opened.save(tmp_path / "model")
    own = Recommender.load(tmp_path / "model", encoder=encoder)
    assert own.info() == opened.info()
    user = own.adapt_user(["p1", Interaction(text=TENT)])
    assert user == opened.adapt_user(["p1", Interaction(text=TENT)])
    assert own.recommend(user, k=5) == opened.recommend(user, k=5)
    own.add_items(pl.DataFrame({"item_id": ["pen"], "title": [PEN]}))
    own.update_items(pl.DataFrame({"item_id": ["p3"], "title": [PEN]}))
    own.hide_items(["p2"])
    own.remove_items(["p4"])
    near = own.similar_items("pen", k=300)
    assert near[0].item == "p3"  # the same text
    assert {one.item for one in near}.isdisjoint({"p2", "p4", "pen"})
    assert np.isfinite(own.scores(own.adapt_user(["pen", "p3"]), ["p1", "p3", "pen"])).all()
    assert own.recommend_batch(pl.DataFrame({"user_id": ["u"], "item_id": ["p1"]}), 3).height == 3
    assert len(own.recommend(own.adapt_user([]), k=5)) == 5


def test_lists_of_texts_leave_out_the_item_itself_and_what_has_no_text():
    text = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), dim=1
    )
    lists = lists_of_texts(text, 2)
    on = [set(lists.rows[row][lists.values[row] > 0].tolist()) for row in range(5)]
    assert on == [{1, 4}, {0, 4}, set(), {0, 1}, {0, 1}] or on == [{1, 4}, {0, 4}, set(), {1, 4}, {0, 1}]
    assert float((lists.values**2).sum()) == pytest.approx(4)
    alone = lists_of_texts(text[:1], 2)
    assert not alone.values.any()


def test_a_shop_of_one_item_opens(encoder):
    one = Recommender.from_items(pl.DataFrame({"item_id": ["a"], "title": ["one"]}), encoder=encoder)
    assert [found.item for found in one.recommend(one.adapt_user([]), k=3)] == ["a"]


@pytest.mark.parametrize("prior", [3, {"a": 1}, MetaConfig()])
def test_a_prior_that_is_none_is_refused(shop, encoder, prior):
    with pytest.raises(InvalidDataError, match="pass the folder of a saved model, or a Recommender"):
        Recommender.from_items(shop.items, prior=prior, encoder=encoder)


def test_a_prior_that_is_not_there_is_named(shop, encoder, tmp_path):
    with pytest.raises(ModelFileError, match="nowhere"):
        Recommender.from_items(shop.items, prior=tmp_path / "nowhere", encoder=encoder)


def test_another_encoder_than_the_prior_s_is_said(shop, encoder, fitted):
    from mecold import PrecomputedEncoder

    other = PrecomputedEncoder(encoder.vectors, encoder.matrix, "renamed")
    own = Recommender.from_items(shop.items, prior=fitted, encoder=other, config=SMALL)
    assert "another encoder" in own.info()["notes"][0]
    assert json.dumps(own.info())
