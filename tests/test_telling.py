"""Texts that tell nothing are counted and said, in the fit's report and in `info()`."""

import numpy as np
import polars as pl
import pytest

from mecold import PrecomputedEncoder, Recommender, TextEncoder, TextTemplate
from mecold.encode.telling import told_texts
from mecold.shop import make_shop
from tests.conftest import SMALL

RNG = np.random.default_rng(0)
IDS = pl.Series([f"i{n}" for n in range(40)])
WORDS = [f"text {n}" for n in range(40)]
VECTORS = RNG.normal(size=(40, 8)).astype(np.float32)


def changed(**vectors):
    made = VECTORS.copy()
    for row, value in vectors.items():
        made[int(row[1:])] = value
    return made


def test_ordinary_texts_get_no_note():
    assert told_texts(IDS, WORDS, VECTORS) == []
    assert told_texts(IDS, WORDS, VECTORS - VECTORS.min()) == []
    two_sizes = [*WORDS[:36], *WORDS[:4]]  # an article in two sizes
    assert told_texts(IDS, two_sizes, np.concatenate([VECTORS[:36], VECTORS[:4]])) == []
    assert told_texts(IDS, [""] * 40, np.zeros((40, 8), np.float32)) == []
    assert told_texts(IDS[:1], ["alone"], VECTORS[:1]) == []


def test_equal_texts_are_counted():
    (note,) = told_texts(IDS, ["lamp"] * 40, np.repeat(VECTORS[:1], 40, 0))
    assert note.startswith("All 40 texts are equal ('lamp')")
    half = [*WORDS[:20], *["lamp"] * 20]
    (note,) = told_texts(IDS, half, np.concatenate([VECTORS[:20], np.repeat(VECTORS[20:21], 20, 0)]))
    assert note.startswith(
        "20 of 40 items have a text that another item has too (21 texts differ; 'lamp' stands 20 times)"
    )
    assert "TextTemplate(fields=" in note


def test_zeros_of_an_encoder_are_counted_and_empty_texts_are_not():
    (note,) = told_texts(IDS, WORDS, changed(r3=0.0, r5=0.0))
    assert note.startswith("The encoder returned only zeros for 2 of 40 items with a text ('i3', 'i5')")
    empty = [text if row != 3 else "" for row, text in enumerate(WORDS)]
    assert told_texts(IDS, empty, changed(r3=0.0)) == []
    (note,) = told_texts(IDS, WORDS, np.zeros((40, 8), np.float32))
    assert "40 of 40" in note


def test_different_texts_with_one_vector_are_counted():
    near = VECTORS[7] * (1 + 1e-7)
    (note,) = told_texts(IDS, WORDS, changed(r9=near, r11=VECTORS[7], r20=VECTORS[21]))
    assert note.startswith(
        "5 of 40 items have the vector of another item although their texts differ ('i7', 'i9', 'i11' and"
    )


def test_vectors_nearly_all_alike_are_said():
    (note,) = told_texts(IDS, WORDS, VECTORS * 0.02 + 1)
    assert note.startswith("The vectors of 40 items are nearly all alike (mean cosine 1.000)")


def test_notes_stand_in_the_report_and_in_info_and_on_disk(tmp_path):
    shop = make_shop(120, 200, rng=1)
    items = shop.items.select("item_id", title=pl.lit("lamp"))
    encoder = PrecomputedEncoder.of(["lamp"], VECTORS[:1])
    recommender = Recommender(encoder, config=SMALL, rng=0)
    report = recommender.fit_meta(shop.interactions, items)
    recommender.save(tmp_path / "model")
    for notes in (report.notes, recommender.info()["notes"], Recommender.load(tmp_path / "model").info()["notes"]):
        assert any(note.startswith("All 120 texts are equal ('lamp')") for note in notes)
    own = Recommender.from_items(items, encoder=encoder)
    assert any(note.startswith("All 120 texts are equal") for note in own.info()["notes"])


def test_texts_that_an_encoder_cuts_until_they_are_equal_and_those_it_cannot_read():
    long = "a lamp for the table of the room that is in the house by the sea " * 3
    items = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "title": [f"{long} red", f"{long} blue", "mug", "โคมไฟ"]})
    encoder = TextEncoder(device="cpu", cache=None, max_length=16)
    with pytest.warns(UserWarning, match="1 of 4 items are mostly words that the encoder does not know"):
        own = Recommender.from_items(items, encoder=encoder, template=TextTemplate(max_chars=1000))
    notes = " ".join(own.info()["notes"])
    assert "2 of 4 items have the vector of another item although their texts differ ('a', 'b')" in notes
    assert "1 of 4 items are mostly words that the encoder does not know ('d')" in notes
