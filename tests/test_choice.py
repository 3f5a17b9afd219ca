"""Encoders side by side, and which of several is taken."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from mecold import EncoderError, InvalidDataError, PrecomputedEncoder, Recommender, TrainConfig
from mecold.choice import choose_encoder
from mecold.data.catalog import Catalog
from mecold.encode.beside import SideBySide
from mecold.encode.taught import taught_by
from mecold.meta import fit as meta_fit
from mecold.meta import newcomers
from mecold.meta.choice import Choice, chosen
from mecold.meta.train import train
from mecold.shop import make_shop
from tests.conftest import SMALL, word_vectors

QUICK = replace(SMALL, training=TrainConfig(epochs=1))


class Taught:
    """An encoder that was trained on some texts, and cannot read others."""

    def __init__(self, encoder, taught=(), unreadable=()):
        self.inner, self.known, self.unreadable = encoder, set(taught), set(unreadable)
        self.fingerprint = f"taught {encoder.fingerprint}"

    def encode(self, texts, *, progress=False):
        return self.inner.encode(texts, progress=progress)

    def taught(self, texts):
        return np.array([text in self.known for text in texts], bool)

    def unread(self, texts):
        return [at for at, text in enumerate(texts) if text in self.unreadable]


@pytest.fixture(scope="module")
def goods():
    return make_shop(n_items=120, n_users=800, rng=3)


@pytest.fixture(scope="module")
def texts(goods):
    return list(Catalog.read(goods.items).texts)


@pytest.fixture(scope="module")
def words(texts):
    return word_vectors(texts)


@pytest.fixture(scope="module")
def noise(texts):
    vectors = np.random.default_rng(0).normal(size=(len(texts), 48)).astype(np.float32)
    return PrecomputedEncoder(dict(zip(texts, range(len(texts)), strict=True)), vectors, "noise")


def test_cosines_side_by_side_are_the_mean_of_the_parts(words, noise, texts):
    def cosines(encoder):
        vectors = encoder.encode(texts[:20])
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors @ vectors.T

    both = SideBySide(words, noise)
    np.testing.assert_allclose(cosines(both), (cosines(words) + cosines(noise)) / 2, atol=1e-5)
    assert both.fingerprint != SideBySide(noise, words).fingerprint


def test_side_by_side_tells_what_the_parts_tell(words):
    both = SideBySide(Taught(words, taught=["a"], unreadable=["b", "c"]), Taught(words, taught=["b"], unreadable=["c"]))
    assert both.taught(["a", "b", "c"]).tolist() == [True, True, False]
    assert both.unread(["a", "b", "c"]) == [2]
    assert SideBySide(words, Taught(words, unreadable=["c"])).unread(["c"]) == []  # the first may well read it


def test_one_encoder_has_nothing_beside_it(words):
    with pytest.raises(InvalidDataError, match="two encoders or more; it got 1"):
        SideBySide(words)


def test_a_model_on_both_is_kept_and_read_again(goods, words, noise, tmp_path):
    both = SideBySide(words, noise)
    model = Recommender(both, rng=0, device="cpu", config=QUICK)
    model.fit_meta(goods.interactions, goods.items)
    model.save(tmp_path / "model")
    again = Recommender.load(tmp_path / "model", encoder=both)
    assert again.info()["encoder"] == both.fingerprint


@pytest.mark.parametrize(
    ("new", "users", "wanted"),
    [
        ({"base": 0.20, "trained": 0.21, "both": 0.22}, {"base": 0.1, "trained": 0.1, "both": 0.1}, "both"),
        ({"base": 0.20, "trained": 0.2039, "both": 0.19}, {"base": 0.1, "trained": 0.1, "both": 0.1}, "base"),
        ({"base": 0.20, "trained": 0.21, "both": 0.30}, {"base": 0.1, "trained": 0.0996, "both": 0.099}, "trained"),
        ({"base": math.nan, "trained": 0.3}, {"base": 0.1, "trained": 0.1}, "base"),
        ({"base": 0.2, "trained": 0.3}, {"base": math.nan, "trained": math.nan}, "trained"),
    ],
)
def test_the_first_stays_unless_another_is_clearly_better(new, users, wanted):
    assert chosen(new, users) == wanted


@pytest.fixture(scope="module")
def choice(goods, words, noise):
    return choose_encoder({"noise": noise, "words": words}, goods.interactions, goods.items, config=QUICK, device="cpu")


def test_words_are_chosen_over_noise(choice):
    assert choice.name == "words"
    assert choice.new_items["words"] > 1.2 * choice.new_items["noise"]
    assert choice.told().startswith("Texts: words. ")


def test_all_are_judged_on_items_that_none_was_taught(goods, words, noise, texts, choice):
    """Whichever encoder was taught most items, every one is judged on the others."""

    def judged(**candidates):
        return choose_encoder(candidates, goods.interactions, goods.items, config=QUICK, device="cpu").new_items

    first, second = (
        judged(noise=noise, words=Taught(words, taught=texts[40:])), judged(noise=Taught(noise, taught=texts[40:]), words=words)
    )  # fmt: skip
    assert first == second
    assert all(first[name] != choice.new_items[name] for name in first)


def test_no_candidate_is_an_error(goods):
    with pytest.raises(InvalidDataError, match="names no encoder"):
        choose_encoder({}, goods.interactions, goods.items)


def test_too_few_users_to_tell_leave_the_first(goods, words, noise):
    some = goods.interactions.filter(
        pl.col("user_id").is_in(goods.interactions["user_id"].unique().sort()[:20].implode())
    )
    choice = choose_encoder({"noise": noise, "words": words}, some, goods.items, config=QUICK, device="cpu")
    assert isinstance(choice, Choice) and choice.name == "noise" and math.isnan(choice.new_items["words"])


def test_every_candidate_is_judged_on_the_same_items(goods, words, noise, monkeypatch):
    """However long each was trained, and so however much chance it took."""
    rehearsed = []

    class Spy(newcomers.Rehearsal):
        def __init__(self, known, new, users, alike):
            rehearsed.append(new)
            super().__init__(known, new, users, alike)

    def longer(head, *args, rng, **settings):
        rng.random(len(rehearsed))
        return train(head, *args, rng=rng, **settings)

    monkeypatch.setattr(newcomers, "Rehearsal", Spy)
    monkeypatch.setattr(meta_fit, "train", longer)
    choose_encoder({"noise": noise, "words": words}, goods.interactions, goods.items, config=QUICK, device="cpu")
    first, second = rehearsed[: len(rehearsed) // 2], rehearsed[len(rehearsed) // 2 :]
    assert len(first) == len(second) > 0
    assert all((one == other).all() for one, other in zip(first, second, strict=True))


def test_without_calibration_nothing_is_chosen(goods, words):
    config = replace(SMALL, training=TrainConfig(calibrate=False))
    with pytest.raises(InvalidDataError, match="nothing to choose by"):
        choose_encoder({"words": words}, goods.interactions, goods.items, config=config)


def test_an_encoder_that_tells_otherwise_is_refused(words):
    odd = Taught(words)
    for answer in ([1, 0], np.ones(3, bool)):
        odd.taught = lambda texts, answer=answer: answer
        with pytest.raises(EncoderError, match="must return a bool per text"):
            taught_by(odd, ["a", "b"])


def test_nested_encoders_are_others(words, noise):
    nested, flat = SideBySide(words, SideBySide(noise, words)), SideBySide(words, noise, words)
    assert nested.fingerprint != flat.fingerprint


def test_other_vectors_under_the_same_name_are_refused_beside_an_encoder_too(goods, words, noise, tmp_path):
    model = Recommender(SideBySide(words, noise), rng=0, device="cpu", config=QUICK)
    model.fit_meta(goods.interactions, goods.items)
    model.save(tmp_path / "model")
    other = replace(noise, matrix=noise.matrix[::-1].copy())
    with pytest.raises(EncoderError, match="have other vectors"):
        Recommender.load(tmp_path / "model", encoder=SideBySide(words, other))
