"""Saving and loading: bit for bit, or a clear error; the previous model survives whatever happens."""

import json
import pickle
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mecold import EncoderError, InvalidDataError, ModelFileError, PrecomputedEncoder, Recommender
from mecold.space import approximate
from mecold.types import Recommendation
from tests.conftest import ON_CPU, assert_same


@pytest.fixture
def folder(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_comes_back_bit_for_bit(fitted, folder, encoder, shop):
    loaded = Recommender.load(folder, encoder=encoder)
    assert loaded.info() == fitted.info()
    assert loaded.config == fitted.config
    user = fitted.adapt_user(["p1", "p2"])
    assert loaded.adapt_user(["p1", "p2"]).seen == user.seen
    assert_same(loaded.recommend(user, k=20), fitted.recommend(user, k=20))
    if ON_CPU:
        assert loaded.adapt_user(["p1", "p2"]) == user
        assert loaded.recommend_batch(shop.interactions, k=3).equals(fitted.recommend_batch(shop.interactions, k=3))
    loaded.save(folder.with_name("again"))
    for file in (
        "weights.safetensors",
        "items.text.item.npy",
        "items.lists.rows.npy",
        "items.parquet",
        "log.parquet",
        "log_users.parquet",
        "fit_log.jsonl",
    ):
        assert (folder / file).read_bytes() == (folder.with_name("again") / file).read_bytes()


def test_a_folder_holds_no_pickle_and_a_log_lies_next_to_the_model(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert [name for name in names if not name.endswith(".npy")] == [
        "config.json", "fit_log.jsonl", "items.parquet", "log.parquet",
        "log_items.parquet", "log_users.parquet", "log_waiting.parquet", "weights.safetensors",
    ]  # fmt: skip
    assert "items.symmetric.support.npy" in names
    for name in names:
        if name.endswith(".npy"):
            assert np.load(folder / name, allow_pickle=False).dtype != object
    steps = [json.loads(line) for line in (folder / "fit_log.jsonl").read_text().splitlines()]
    assert steps[1]["loss"] > 0


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["auto", "hnsw", "IVF4,Flat"])
def test_a_faiss_index_is_saved_with_the_model(shop, fit, encoder, tmp_path, monkeypatch, kind, mapped):
    monkeypatch.setattr(approximate, "CROSSOVER", 100)
    recommender = fit(shop.interactions, shop.items, index=kind, device="cpu")
    recommender.save(tmp_path / "m")
    assert (tmp_path / "m" / "index.faiss").stat().st_size > 0
    loaded = Recommender.load(tmp_path / "m", encoder=encoder, device="cpu", mapped=mapped)
    user = recommender.adapt_user(["p1"])
    assert loaded.recommend(user) == recommender.recommend(user)
    assert loaded.recommend(user, among=[f"p{n}" for n in range(20, 290)]) == recommender.recommend(
        user, among=[f"p{n}" for n in range(20, 290)]
    )
    assert loaded.info()["index"] == kind
    loaded.add_items(pl.DataFrame({"item_id": ["new"], "title": ["one"]}))
    assert "new" in {one.item for one in loaded.recommend(user, k=301)}


def test_integer_ids_stay_integers(shop, fit, tmp_path):
    number = pl.col("item_id").str.slice(1).cast(pl.Int64)
    recommender = fit(shop.interactions.with_columns(number), shop.items.with_columns(number))
    recommender.save(tmp_path / "m")
    loaded = Recommender.load(tmp_path / "m")
    found = loaded.recommend(loaded.adapt_user([1, 2]))
    assert all(type(one.item) is int and isinstance(one, Recommendation) for one in found)


@pytest.mark.parametrize("file", ["config.json", "weights.safetensors", "items.symmetric.item.npy", "items.parquet"])
def test_a_truncated_changed_or_missing_file_is_named(folder, file):
    whole = (folder / file).read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for content in (whole[: len(whole) // 2], bytes(changed)):
        (folder / file).write_bytes(content)
        with pytest.raises(ModelFileError, match=file.replace(".", r"\.")):
            Recommender.load(folder)
    (folder / file).unlink()
    with pytest.raises(ModelFileError, match=file.replace(".", r"\.")):
        Recommender.load(folder)


def test_a_newer_format_and_a_folder_without_a_model_are_explained(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 99, "mecold": "9.9"}))
    with pytest.raises(ModelFileError, match=r"format 99, written by mecold 9\.9.*reads format 10"):
        Recommender.load(folder)
    with pytest.raises(ModelFileError, match="no mecold model"):
        Recommender.load(tmp_path / "nothing")


def test_a_folder_of_an_older_format_can_be_saved_over(fitted, folder):
    config = json.loads((folder / "config.json").read_text())
    del config["kind"]
    (folder / "config.json").write_text(json.dumps(config | {"format": 7}))
    fitted.save(folder)
    assert Recommender.load(folder).info() == fitted.info()


def test_a_tampered_setting_is_noticed(folder):
    config = json.loads((folder / "config.json").read_text())
    config["encoder"] = "another"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=r"config\.json"):
        Recommender.load(folder)


def test_a_failed_save_leaves_the_previous_model_whole(fitted, folder, monkeypatch):
    from mecold import sealed

    def full_disk(path):
        if path.name == "items.parquet":
            raise OSError(28, "No space left on device")
        return "x"

    monkeypatch.setattr(sealed, "_hash", full_disk)
    with pytest.raises(ModelFileError, match=r"No space left.*Make room"):
        fitted.save(folder)
    monkeypatch.undo()
    assert Recommender.load(folder).info() == fitted.info()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing half-written lies around


def test_saving_over_a_model_replaces_it_and_over_anything_else_is_refused(fitted, own, folder, tmp_path):
    own.remove_items(["p1"])
    own.save(folder)
    assert Recommender.load(folder).info()["items"] == 299
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"meow")
    with pytest.raises(ModelFileError, match="not a mecold model"):
        fitted.save(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"meow"


def test_an_interrupted_swap_says_where_the_previous_model_lies(folder):
    old = folder.with_name(".model.old-12345678")
    shutil.move(folder, old)
    with pytest.raises(ModelFileError, match=r"previous one lies in .*\.model\.old-12345678"):
        Recommender.load(folder)


def test_another_encoder_is_refused(folder):
    other = PrecomputedEncoder.of(["one"], np.ones((1, 48)), "other")
    with pytest.raises(EncoderError, match="fitted with the encoder 'words"):
        Recommender.load(folder, encoder=other)


def test_another_program_s_config_or_added_files_are_not_deleted(fitted, folder, tmp_path):
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    (folder / "notes.md").write_text("mine")
    for target in (other, folder):
        with pytest.raises(ModelFileError, match="not a mecold model, or holds other files"):
            fitted.save(target)
    assert (other / "config.json").is_file()
    assert (folder / "notes.md").read_text() == "mine"


def test_a_swap_that_fails_puts_the_previous_model_back(fitted, folder, monkeypatch):
    from pathlib import Path

    from mecold import swap

    rename = Path.rename

    def failing(path, target):
        if ".new-" in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)  # a system on which it takes two renames
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ModelFileError, match="Input/output"):
        fitted.save(folder)
    monkeypatch.undo()
    assert Recommender.load(folder).info() == fitted.info()


def test_an_index_that_can_no_longer_be_built_is_searched_exactly(shop, fit, encoder, tmp_path):
    recommender = fit(shop.interactions, shop.items, index="IVF200,Flat")
    with pytest.warns(UserWarning, match="Searching exactly"):
        recommender.remove_items([f"p{i}" for i in range(150)])
    assert len(recommender.recommend(recommender.adapt_user([]), k=300)) == 150
    recommender.save(tmp_path / "m")
    assert Recommender.load(tmp_path / "m").info()["items"] == 150


def test_a_recommender_can_be_pickled_and_copied_and_both_live_on(own):
    user = own.adapt_user(["p1", "p2"])
    for copy in (pickle.loads(pickle.dumps(own)), deepcopy(own)):
        assert_same(copy.recommend(user, k=5), own.recommend(user, k=5))
        copy.add_items(pl.DataFrame({"item_id": ["zz"], "title": ["one"]}))
        assert "zz" in copy and "zz" not in own


def test_a_mapped_model_answers_as_the_whole_one_whoever_saves_meanwhile(fitted, folder, encoder, shop):
    mapped = Recommender.load(folder, encoder=encoder, device="cpu", mapped=True)
    whole = Recommender.load(folder, encoder=encoder, device="cpu")
    assert {**mapped.info(), "log": None} == {**whole.info(), "log": None}
    assert mapped.info()["log"] is None
    if Path("/proc/self/maps").is_file():
        assert f"{folder}/items.symmetric.support.npy" in Path("/proc/self/maps").read_text()
    other = fitted.adapt_user(["p7"])
    Recommender.load(folder, encoder=encoder).save(folder)  # the files that are mapped lose their names
    assert mapped.recommend_batch(shop.interactions, k=5).equals(whole.recommend_batch(shop.interactions, k=5))
    for one in (mapped, whole):
        one.add_items(pl.DataFrame({"item_id": ["new"], "title": ["Arbor Plain Gel Pen, Black"]}))
        one.remove_items(["p3"])
    assert mapped.recommend(mapped.adapt_user(["p7"]), k=301) == whole.recommend(whole.adapt_user(["p7"]), k=301)
    assert mapped.adapt_user(["p7"]) == whole.adapt_user(["p7"])
    assert mapped.adapt_user(["p7"]).seen == other.seen


def test_a_mapped_model_is_for_serving_and_says_so(folder, tmp_path, shop):
    mapped = Recommender.load(folder, mapped=True)
    with pytest.raises(ModelFileError, match="mapped=True"):
        mapped.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(InvalidDataError, match="mapped=True"):
        mapped.observe(shop.interactions.head(3))


@pytest.mark.parametrize("length", [0, 60, -100])
@pytest.mark.parametrize("file", ["items.directed.item.npy", "index.faiss"])
def test_a_mapped_file_that_is_cut_is_named(shop, fit, tmp_path, file, length):
    fit(shop.interactions, shop.items, index="IVF4,SQ8").save(tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelFileError, match=file.replace(".", r"\.")):
        Recommender.load(tmp_path / "m", mapped=True)
