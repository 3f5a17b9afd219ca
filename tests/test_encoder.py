"""The encoder: real weights, an independent implementation, and a cache that survives crashes and company."""

import copy
import json
import multiprocessing
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mecold import Catalog, DataWarning, EncoderError, InvalidDataError, PrecomputedEncoder, Recommender, TextEncoder
from mecold.encode.cache import VectorCache
from mecold.encode.model_folder import find_model
from mecold.shop import make_shop
from tests.conftest import SMALL

TEXTS = ["gel pen", "a very long text " * 200, "", "🙂 emoji", "gel pen", "Stift", "tent\x00with control"]


@pytest.fixture(scope="module")
def model_folder():
    return find_model("sentence-transformers/all-MiniLM-L6-v2")


def test_vectors_are_those_of_sentence_transformers(model_folder, tmp_path):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(model_folder), device="cpu").encode(TEXTS, normalize_embeddings=True)
    ours = TextEncoder(cache=tmp_path, device="cpu").encode(TEXTS)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_pooling_length_and_normalisation_are_settings(model_folder):
    plain = TextEncoder(model_folder, cache=None, device="cpu").encode(["one two three four five"])
    cls = TextEncoder(model_folder, pooling="cls", cache=None, device="cpu")
    short = TextEncoder(model_folder, max_length=4, cache=None, device="cpu")
    raw = TextEncoder(model_folder, normalize=False, cache=None, device="cpu")
    prompted = TextEncoder(model_folder, prompt="query: ", cache=None, device="cpu")
    for other in (cls, short, prompted):
        assert np.abs(other.encode(["one two three four five"]) - plain).max() > 0.01
    vector = raw.encode(["one two three four five"])
    np.testing.assert_allclose(vector / np.linalg.norm(vector), plain, atol=1e-6)
    assert len({e.fingerprint for e in (cls, short, raw, prompted)}) == 4


def test_a_plain_bert_folder_without_sentence_transformers_files_works(model_folder, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(model_folder / name, tmp_path / name)
    encoder = TextEncoder(tmp_path, cache=None, max_length=256, device="cpu")
    expected = TextEncoder(model_folder, cache=None, device="cpu").encode(["gel pen"])
    np.testing.assert_allclose(encoder.encode(["gel pen"]), expected, atol=1e-6)


def test_only_new_texts_go_through_the_model(tmp_path, monkeypatch):
    encoder = TextEncoder(cache=tmp_path, device="cpu")
    encoded = []
    forward = encoder._encode_new
    monkeypatch.setattr(encoder, "_encode_new", lambda texts, **kw: encoded.extend(texts) or forward(texts, **kw))
    first = encoder.encode(["a", "b", "a", "c"])
    again = encoder.encode(["c", "d", "a"])
    assert sorted(encoded) == ["a", "b", "c", "d"]
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(again[[0, 2]], first[[3, 0]])
    assert np.array_equal(TextEncoder(cache=tmp_path, device="cpu").encode(["a"]), first[:1])


def test_a_killed_run_resumes_where_it_was(tmp_path, monkeypatch):
    encoder = TextEncoder(cache=tmp_path, device="cpu")
    monkeypatch.setattr("mecold.encode.encoder._CHUNK", 2)
    forward, calls = encoder._encode_new, []

    def killed(texts, **settings):
        calls.append(list(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(texts, **settings)

    monkeypatch.setattr(encoder, "_encode_new", killed)
    texts = [f"text {i}" for i in range(7)]
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(texts)
    encoder.encode(texts)
    before, after = ({text for call in part for text in call} for part in (calls[:2], calls[3:]))
    assert before
    assert not before & after  # what was encoded before the kill is not encoded again


def test_a_model_that_is_nowhere_names_both_remedies(monkeypatch, tmp_path):
    monkeypatch.setattr("mecold.encode.model_folder._bundled_folder", lambda: None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"folder of a downloaded model.*mecold\[bundled\]"):
        TextEncoder()
    with pytest.raises(EncoderError, match="'no/such-model' is neither"):
        TextEncoder("no/such-model")


def test_unsafe_or_unreadable_models_are_refused(model_folder, tmp_path):
    with pytest.raises(EncoderError, match=r"no \*\.safetensors"):
        TextEncoder(tmp_path)
    shutil.copytree(model_folder, tmp_path / "m")
    modules = json.loads((tmp_path / "m" / "modules.json").read_text())
    strange = [*modules, {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}]
    (tmp_path / "m" / "modules.json").write_text(json.dumps(strange))
    with pytest.raises(EncoderError, match=r"'Dense'.*PrecomputedEncoder"):
        TextEncoder(tmp_path / "m")


def test_changed_bundled_weights_are_refused(monkeypatch):
    monkeypatch.setattr("mecold.encode.model_folder.BUNDLED_SHA256", "0" * 64)
    with pytest.raises(EncoderError, match="not the known all-MiniLM-L6-v2"):
        TextEncoder()


def cache(folder, dim=3):
    return VectorCache(folder, "encoder", dim)


def test_the_cache_gives_back_what_was_put_in_and_cuts_off_half_written_rows(tmp_path):
    store = cache(tmp_path)
    keys = store.keys([f"t{i}" for i in range(1000)])
    vectors = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    store.append(keys[:500], vectors[:500])
    store.append(keys[250:], vectors[250:])  # an overlap is not stored twice
    assert len(store) == 1000
    assert np.array_equal(store.read(store.find(keys))[0], vectors)
    for name in ("rows.bin", "keys.bin"):  # a writer killed in the middle of a row
        with next(Path(tmp_path).glob(f"*/{name}")).open("ab") as file:
            file.write(b"\x01\x02\x03")
    fresh = cache(tmp_path)
    assert np.array_equal(fresh.read(fresh.find(keys))[0], vectors)
    new = fresh.keys(["another"])
    fresh.append(new, np.ones((1, 3), np.float32))
    reread = cache(tmp_path)
    assert np.array_equal(reread.read(reread.find(new))[0], np.ones((1, 3), np.float32))
    assert np.array_equal(reread.read(reread.find(keys))[0], vectors)


@pytest.mark.parametrize("harm", ["a bit", "not a number"])
def test_damaged_vectors_are_noticed_and_made_again(tmp_path, harm):
    texts = ["gel pen", "wall clock", "tea"]
    encoder = TextEncoder(cache=tmp_path, device="cpu")
    sound = encoder.encode(texts)
    path = next(tmp_path.glob("*/rows.bin"))
    data = bytearray(path.read_bytes())
    width = len(data) // 3
    data[width + 8 : width + 12] = (
        np.float32("nan").tobytes()
        if harm == "not a number"
        else bytes([data[width + 8] ^ 1]) + data[width + 9 : width + 12]
    )
    path.write_bytes(data)
    again = TextEncoder(cache=tmp_path, device="cpu")
    with pytest.warns(DataWarning, match="1 vectors of the cache were damaged"):
        assert np.allclose(again.encode(texts), sound, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(again.encode(texts), sound, atol=1e-6)


def write_some(folder, start):
    store = cache(folder)
    for i in range(start, start + 200, 10):
        texts = [f"t{j}" for j in range(i, i + 10)]
        store.append(store.keys(texts), np.array([[j, j, j] for j in range(i, i + 10)], np.float32))


def test_two_processes_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_some, args=(tmp_path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = cache(tmp_path)
    assert len(store) == 300
    rows = store.find(store.keys([f"t{j}" for j in range(300)]))
    assert np.array_equal(store.read(rows)[0][:, 0], np.arange(300))


def test_precomputed_vectors_are_checked(tmp_path):
    matrix = np.eye(2, dtype=np.float32)
    pl.DataFrame({"text": ["a", "b"], "vector": matrix.tolist()}).write_parquet(tmp_path / "v.parquet")
    encoder = PrecomputedEncoder.read(tmp_path / "v.parquet")
    assert np.array_equal(encoder.encode(["b", "a"]), matrix[[1, 0]])
    with pytest.raises(EncoderError, match="1 texts have no precomputed vector: 'c'"):
        encoder.encode(["a", "c"])
    with pytest.raises(InvalidDataError, match="3 texts need a matrix"):
        PrecomputedEncoder.of(["a", "b", "c"], matrix)
    with pytest.raises(InvalidDataError, match="two different vectors"):
        PrecomputedEncoder.of(["a", "a"], matrix)
    with pytest.raises(InvalidDataError, match="1 vectors are not finite"):
        PrecomputedEncoder.of(["a", "b"], np.array([[1.0], [np.nan]]))


def test_threads_may_share_a_cache(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    store = cache(tmp_path)

    def write(start):
        for i in range(start, start + 100, 5):
            keys = store.keys([f"t{j}" for j in range(i, i + 5)])
            store.append(keys, np.full((5, 3), i, np.float32))
            assert (store.find(keys) >= 0).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [0, 100, 200, 300]))
    assert len(store) == 400


def test_a_partial_snapshot_in_the_hub_cache_does_not_hide_the_bundled_weights(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    assert (find_model("sentence-transformers/all-MiniLM-L6-v2") / "model.safetensors").is_file()


def test_nothing_to_encode_is_an_empty_matrix(tmp_path):
    assert TextEncoder(cache=tmp_path, device="cpu").encode([]).shape == (0, 384)


def test_an_encoder_is_known_by_its_weights_and_settings_not_by_its_name(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "other name")
    here, there = (TextEncoder(place, cache=None, device="cpu") for place in (model_folder, tmp_path / "other name"))
    assert here.fingerprint == there.fingerprint == TextEncoder(cache=None, device="cpu").fingerprint
    assert TextEncoder(model_folder, max_length=7, cache=None, device="cpu").fingerprint != here.fingerprint
    vocabulary = tmp_path / "other name" / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text() + "newword\n")
    assert TextEncoder(tmp_path / "other name", cache=None, device="cpu").fingerprint != here.fingerprint


def test_a_cache_that_cannot_be_written_is_a_warning_and_vectors_are_made_without_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.warns(DataWarning, match="Cannot write the vector cache"):
        blocked = TextEncoder(cache=tmp_path / "file" / "below", device="cpu")
    full = TextEncoder(cache=tmp_path / "fills up", device="cpu")

    def no_space(self, keys, vectors):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VectorCache, "append", no_space)
    with pytest.warns(DataWarning, match="No space left"):
        found = full.encode(["gel pen", "tent"])
    expected = TextEncoder(cache=None, device="cpu").encode(["gel pen", "tent"])
    for vectors in (found, blocked.encode(["gel pen", "tent"]), full.encode(["gel pen", "tent"])):
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


READ = [
    "Gel pen, 0.7 mm", "XR-500µ / Ω-meter 12 × 30 cm", "1234", "12 🙂", "Lamp 🎁🙂 ✨ 🎉", "Crème brûlée Straße", "№ 5", "™ ® ½",
    "Привет мир", "Ελληνικά", "مصباح", "שלום", "☆☆☆☆☆ 4,5", "https://example.com/" + "a-b/" * 40, "", "โคมไฟ model X-200",
    "A table lamp. โคมไฟ",
]  # fmt: skip
UNREAD = ["โคมไฟ", "โคมไฟ - 12 × 30", "የጠረጴዛ መብራት", "ចង្កៀង", "🙂", "🎁 🎉", "電氣檯燈 X", "a" * 500]


def test_texts_of_unknown_words_are_found_and_ordinary_ones_are_not():
    encoder = TextEncoder(cache=None, device="cpu")
    assert [READ[row] for row in encoder.unread(READ)] == []
    assert [UNREAD[row] for row in encoder.unread(UNREAD)] == UNREAD
    assert encoder.unread(["pen", UNREAD[0], "lamp", UNREAD[1]]) == [1, 3]
    assert encoder.unread([]) == []
    before = encoder.encode(TEXTS)
    assert np.array_equal(encoder.encode(TEXTS), before)  # looking at texts leaves no setting behind


def test_a_tokenizer_that_knows_every_byte_reads_every_text():
    encoder = TextEncoder(cache=None, device="cpu")
    encoder._tokenizer.unk_token = None
    assert encoder.unread(UNREAD) == []


@pytest.fixture(scope="module")
def half_read():
    """A recommender whose encoder reads Latin letters only, after a fit on 300 items of which p0 and p1 are Thai."""
    shop = make_shop(300, 500, rng=1)
    thai = pl.when(pl.col("item_id").is_in(["p0", "p1"])).then(pl.lit("โคมไฟ")).otherwise("title").alias("title")
    items = shop.items.select("item_id", thai)
    recommender = Recommender(TextEncoder(device="cpu"), config=SMALL, rng=0, device="cpu")
    with pytest.warns(DataWarning, match=r"2 of 300 items are mostly .*\('p0', 'p1'\).*multilingual"):
        recommender.fit_meta(shop.interactions, items)
    return recommender


@pytest.mark.parametrize(("call", "ids"), [("add_items", ["n1", "n2", "n3"]), ("update_items", ["p4", "p5", "p6"])])
def test_items_that_the_encoder_cannot_read_are_counted(half_read, call, ids):
    change = getattr(copy.deepcopy(half_read), call)
    with pytest.warns(DataWarning, match=rf"2 of 3 items are mostly .*\('{ids[1]}', '{ids[2]}'\)"):
        change(pl.DataFrame({"item_id": ids, "title": ["Gel pen", "โคมไฟ", "ចង្កៀង"]}))
    change = getattr(copy.deepcopy(half_read), call)
    change(pl.DataFrame({"item_id": ids, "title": ["Gel pen 🙂", "XR-500", "1234"]}))


def test_other_vectors_of_the_same_name_do_not_mix():
    shop = make_shop(300, 300, rng=2)
    texts, rng = list(Catalog.read(shop.items).texts), np.random.default_rng(0)
    matrix = rng.normal(size=(len(texts) + 1, 8)).astype(np.float32)
    recommender = Recommender(PrecomputedEncoder.of(texts, matrix[:-1]), config=SMALL, rng=0, device="cpu")
    recommender.fit_meta(shop.interactions, shop.items)
    new = pl.DataFrame({"item_id": ["new"], "title": ["a lamp"]})
    grown = PrecomputedEncoder.of([*texts, "a lamp"], matrix)
    other = PrecomputedEncoder.of([*texts, "a lamp"], matrix[:, ::-1].copy())
    for encoder, fits in ((grown, True), (other, False)):
        recommender._encoder = encoder
        with nullcontext() if fits else pytest.raises(EncoderError, match="other vectors in the encoder 'precomputed'"):
            (recommender.add_items if fits else recommender.update_items)(new)
