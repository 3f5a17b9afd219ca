"""A recommender crosses borders: copies, pickles, worker processes."""

import copy
import multiprocessing
import pickle

import joblib
import polars as pl
import pytest

from mecold import Recommender, TextEncoder
from tests.conftest import SMALL, word_vectors

HISTORY = ["p1", "p2", "p5"]


def served(recommender):
    return recommender.recommend(recommender.adapt_user(HISTORY), k=10)


@pytest.fixture(scope="module")
def ours(goods):
    texts = [*Recommender(None).template.render(goods.items)[0], "a new thing"]
    recommender = Recommender(word_vectors(texts), config=SMALL, rng=0)
    recommender.fit_meta(goods.interactions, goods.items)
    return recommender


@pytest.fixture(scope="module")
def goods():
    from mecold.shop import make_shop

    return make_shop(n_items=200, n_users=400, rng=0)


@pytest.mark.parametrize("made", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_serves_the_same(ours, made):
    again = made(ours)
    assert served(again) == served(ours)
    assert again.info() == ours.info()
    assert again.adapt_user(HISTORY) == ours.adapt_user(HISTORY)


def test_a_copy_goes_ways_of_its_own(ours):
    before, again = served(ours), copy.deepcopy(ours)
    again.add_items(pl.DataFrame({"item_id": ["new"], "title": ["a new thing"]}))
    again.hide_items([before[0].item])
    assert before[0].item not in [one.item for one in served(again)]
    assert served(ours) == before
    assert "new" not in ours


def test_a_copy_that_was_never_fitted_can_be(goods, ours):
    again = pickle.loads(pickle.dumps(Recommender(ours._encoder, config=SMALL, rng=0)))
    again.fit_meta(goods.interactions, goods.items)
    assert served(again) == served(ours), "the state of its chance came along"


def test_joblib_keeps_one_in_a_file(ours, tmp_path):
    joblib.dump(ours, tmp_path / "ours.joblib")
    assert served(joblib.load(tmp_path / "ours.joblib")) == served(ours)


def test_a_spawned_process_serves_the_same(ours):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(served, (ours,)) == served(ours)


def test_an_encoder_is_handed_over_by_its_folder(tmp_path):
    first = TextEncoder(cache=tmp_path / "vectors", max_length=16, prompt="a shop sells: ")
    again = copy.deepcopy(first)
    assert again.fingerprint == first.fingerprint
    assert (again.encode(["a pen"]) == first.encode(["a pen"])).all()
    assert [path.name for path in (tmp_path / "vectors").iterdir()], "the copy reads the same cache"
    assert len(pickle.dumps(first)) < 2000, "weights stay where they are"
