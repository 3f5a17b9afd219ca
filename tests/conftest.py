"""Shared fixtures. Everything runs offline; the encoder's weights come from the bundled package."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["MECOLD_DEVICE"] = os.environ.get("MECOLD_TEST_DEVICE", "cpu")  # MECOLD_TEST_DEVICE=cuda make test

from mecold import MetaConfig, PrecomputedEncoder, Recommendation, Recommender, TrainConfig
from mecold.shop import Shop, make_shop
from mecold.space.settings import FactorConfig

ON_CPU = os.environ["MECOLD_DEVICE"] == "cpu"
bitwise = pytest.mark.skipif(not ON_CPU, reason="bit-for-bit equality is promised on the CPU alone")


def assert_same(found: list[Recommendation], expected: list[Recommendation]) -> None:
    """Equal lists: to the bit on the CPU; elsewhere sums are taken in any order, and scores agree to six digits."""
    if ON_CPU:
        assert found == expected
    assert [one.item for one in found] == [one.item for one in expected]
    np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], rtol=1e-5)


def pytest_configure(config: pytest.Config) -> None:
    """A warning about data that no test expects is a failure (set here: the ini file would import mecold too early)."""
    config.addinivalue_line("filterwarnings", "error::mecold.errors.DataWarning")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's vector cache."""
    os.environ["MECOLD_CACHE"] = str(tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="session")
def shop() -> Shop:
    return make_shop(300, 500, rng=1)


def word_vectors(texts: list[str], dim: int = 48) -> PrecomputedEncoder:
    """Bag-of-words vectors: cheap, and texts of one product type really are alike."""
    table = np.random.default_rng(0).normal(size=(4096, dim)).astype(np.float32)
    known: dict[str, int] = {}
    rows = []
    for text in dict.fromkeys(texts):
        words = [known.setdefault(word.strip(".,").lower(), len(known)) for word in text.split()]
        vector = table[[word % 4096 for word in words]].sum(0) if words else np.ones(dim, np.float32)
        rows.append(vector / np.linalg.norm(vector))
    return PrecomputedEncoder.of(list(dict.fromkeys(texts)), np.array(rows), "words")


@pytest.fixture(scope="session")
def encoder(shop: Shop) -> PrecomputedEncoder:
    from mecold import Catalog

    extra = ["Arbor Plain Gel Pen, Black", "Fennick Neon Tent, Rose", "one", "two", "three"]
    return word_vectors([*Catalog.read(shop.items).texts, *extra])


SMALL = MetaConfig(
    factors=FactorConfig(symmetric_rank=24, directed_rank=24, l2=50.0),
    training=TrainConfig(epochs=3, patience=3),
    text_rank=16,
)


@pytest.fixture(scope="session")
def fit(encoder: PrecomputedEncoder) -> Callable[..., Recommender]:
    def fitted(
        interactions: pl.DataFrame, items: pl.DataFrame, config: MetaConfig = SMALL, **settings: object
    ) -> Recommender:
        recommender = Recommender(settings.pop("encoder", encoder), config=config, rng=0, **settings)
        recommender.fit_meta(interactions, items)
        return recommender

    return fitted


@pytest.fixture(scope="session")
def fitted(shop: Shop, fit: Callable[..., Recommender]) -> Recommender:
    """A model that no test changes."""
    return fit(shop.interactions, shop.items)


@pytest.fixture
def own(fitted: Recommender, encoder: PrecomputedEncoder, tmp_path: Path) -> Recommender:
    """A copy of the model that a test may change."""
    fitted.save(tmp_path / "own")
    return Recommender.load(tmp_path / "own", encoder=encoder)
