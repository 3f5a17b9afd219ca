"""Folders that others write, kill, move, mount and damage while they are read."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mecold import MecoldError, ModelFileError, Recommender
from mecold.sealed import read_sealed, write_sealed
from mecold.space.approximate import FaissIndex, opened
from mecold.swap import leftovers_of

KIND, FORM = "thing", 1


def put_of(number, size=2000):
    def put(fresh):
        for name in ("a", "b", "c"):
            (fresh / name).write_text(f"{number} " * size)
        return {"number": number}

    return put


def whole(folder):
    """The number of a thing all of whose files are of one save."""
    found = read_sealed(folder, KIND, FORM)
    numbers = {found.config["number"], *(int(part) for name in "abc" for part in set(found.text(name).split()))}
    assert len(numbers) == 1, numbers
    return numbers.pop()


def test_a_load_beside_saves_is_never_of_two_halves_and_never_refused(tmp_path):
    folder, done, seen = tmp_path / "it", threading.Event(), set()
    write_sealed(folder, KIND, FORM, put_of(0))

    def write():
        number = 0
        while not done.is_set():
            number += 1
            write_sealed(folder, KIND, FORM, put_of(number % 2))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(1500):
            seen.add(whole(folder))
    finally:
        done.set()
        writer.join()
    assert seen == {0, 1}
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_two_models_that_take_turns_are_loaded_whole(fitted, own, tmp_path):
    own.remove_items(["p1"])
    done = threading.Event()
    fitted.save(tmp_path / "m")

    def write():
        while not done.is_set():
            for one in (own, fitted):
                one.save(tmp_path / "m")

    writer = threading.Thread(target=write)
    writer.start()
    sizes = {len(one.item_ids()): one.info()["notes"] for one in (own, fitted)}
    try:
        for _ in range(60):
            loaded = Recommender.load(tmp_path / "m")
            assert loaded.info()["notes"] == sizes[len(loaded.item_ids())]
            assert ("p1" in loaded) == (len(loaded.item_ids()) == 300)
            loaded.recommend(loaded.adapt_user(["p2"]), 3)
    finally:
        done.set()
        writer.join()


SAVER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from mecold.sealed import write_sealed
from tests.test_sealed import put_of
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_sealed(Path({folder!r}), "thing", 1, put_of(number, 20000))
"""


def test_a_save_that_is_killed_leaves_a_whole_one_and_the_next_save_takes_its_leftovers_along(tmp_path):
    folder, dice = tmp_path / "it", random.Random(0)
    write_sealed(folder, KIND, FORM, put_of(0))
    script = SAVER.format(root=str(Path(__file__).parents[1]), folder=str(folder))
    for _ in range(3):
        saver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        saver.stdout.readline()
        time.sleep(dice.uniform(0.05, 0.25))
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        assert whole(folder) >= 0
    for old in leftovers_of(folder):
        os.utime(old, (1, 1))  # long ago
    stranger = tmp_path / ".it.new-mine"
    stranger.mkdir()
    write_sealed(folder, KIND, FORM, put_of(7))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".it.new-mine", "it"], "a young one may be somebody's"


def test_a_link_is_followed_and_stays_a_link(fitted, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "model")
    fitted.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Recommender.load(tmp_path / "deep" / "model").info() == fitted.info()
    fitted.save(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "link"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


@pytest.mark.parametrize("name", [".", ""])
def test_the_working_directory_is_filled_and_not_replaced(fitted, own, tmp_path, monkeypatch, name):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    fitted.save(name)
    before = Path.cwd().stat().st_ino
    own.remove_items(["p1"])
    own.save(name)
    assert Path.cwd().stat().st_ino == before == here.stat().st_ino
    assert len(Recommender.load(here).item_ids()) == 299
    assert len(list(here.iterdir())) == 2, "the former files are gone"
    (here / "photo.png").write_bytes(b"")
    with pytest.raises(ModelFileError, match="holds other files too"):
        fitted.save(name)


MOUNTED = """
import sys, threading
sys.path.insert(0, {root!r})
from pathlib import Path
from mecold.sealed import write_sealed
from tests.test_sealed import put_of, whole
folder = Path({folder!r})
assert folder.is_mount()
write_sealed(folder, "thing", 1, put_of(1))
done = threading.Event()
def write():
    number = 0
    while not done.is_set():
        number += 1
        write_sealed(folder, "thing", 1, put_of(number))
writer = threading.Thread(target=write); writer.start()
for _ in range(300): whole(folder)
done.set(); writer.join()
assert len(list(folder.iterdir())) == 2, list(folder.iterdir())
try:
    write_sealed(folder, "thing", 1, put_of(1, 3_000_000))
except Exception as error:
    print(type(error).__name__, error)
whole(folder)
"""


def test_a_mount_point_is_saved_to_and_read_meanwhile_and_a_full_one_keeps_what_it_has(tmp_path):
    (tmp_path / "volume").mkdir()
    script = MOUNTED.format(root=str(Path(__file__).parents[1]), folder=str(tmp_path / "volume"))
    mount = f"mount -t tmpfs -o size=8m none {tmp_path / 'volume'}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount")
    both = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, script]
    found = subprocess.run(both, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "ModelFileError" in found.stdout
    assert "No space left" in found.stdout


def test_files_have_the_rights_that_files_have_here(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    (tmp_path / "any").write_text("")
    expected = (tmp_path / "any").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "m").iterdir()} == {expected}


def test_an_interrupted_save_elsewhere_names_the_newest_whole_one(fitted, tmp_path):
    for mark, age in (("aaaaaaaa", 300), ("bbbbbbbb", 200), ("zzzzzzzz", 400)):
        old = tmp_path / f".m.old-{mark}"
        fitted.save(old)
        os.utime(old, (time.time() - age,) * 2)
    (tmp_path / ".m.old-bbbbbbbb" / "items.parquet").unlink()
    os.utime(tmp_path / ".m.old-bbbbbbbb", (time.time() - 200,) * 2)
    with pytest.raises(ModelFileError, match=r"previous one lies in .*\.m\.old-aaaaaaaa"):
        Recommender.load(tmp_path / "m")


def resealed(folder, change):
    """A folder whose config somebody changed, sums and all."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("self")
    change(config)
    config["sha256"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else "0"
        for name in config["sha256"]
    }
    config["self"] = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


ODD = [None, [], {}, "x", -1, 10**30, True, [[[]]], {"a": 1}, ""]


def test_a_config_that_was_written_anew_loads_and_serves_or_is_refused_by_name(fitted, tmp_path):
    dice = np.random.default_rng(0)
    fitted.save(tmp_path / "m")
    before = (tmp_path / "m" / "config.json").read_text()
    refused = 0
    for _ in range(100):

        def change(config):
            place, keys = config, []
            while isinstance(place, dict) and place and (not keys or dice.random() < 0.7):
                keys.append(dice.choice(list(place)))
                before, place = place, place[keys[-1]]
            before[keys[-1]] = ODD[dice.integers(len(ODD))]

        (tmp_path / "m" / "config.json").write_text(before)
        try:
            resealed(tmp_path / "m", change)
        except (TypeError, AttributeError):  # no sums to make anew
            continue
        try:
            loaded = Recommender.load(tmp_path / "m")
            loaded.recommend(loaded.adapt_user(["p1"]), 3)
            loaded.info()
            loaded.save(tmp_path / "again")
        except MecoldError as error:
            refused += 1
            assert len(str(error)) < 2000
    assert refused > 30


@pytest.mark.parametrize("change", ["far", "negative", "nan", "wide", "short", "doubled"])
def test_tensors_that_do_not_fit_together_are_refused_at_the_door(fitted, tmp_path, change):
    fitted.save(tmp_path / "m")
    name = {"far": "lists.rows", "negative": "lists.rows", "short": "counts"}.get(change, "text.item")
    path = tmp_path / "m" / f"items.{name}.npy"
    table = np.load(path)
    if change in ("far", "negative"):
        table[0, 0] = 10**6 if change == "far" else -1
    elif change == "nan":
        table[3, 3] = np.nan
    elif change == "wide":
        table = np.tile(table, (1, 2))
    elif change == "short":
        table = table[:-1]
    np.save(path, table)
    if change == "doubled":
        items = pl.read_parquet(tmp_path / "m" / "items.parquet")
        items.with_columns(item_id=pl.lit("p1")).write_parquet(tmp_path / "m" / "items.parquet")
    resealed(tmp_path / "m", lambda config: None)
    with pytest.raises(ModelFileError, match="does not fit together"):
        Recommender.load(tmp_path / "m")


def test_a_file_less_than_listed_or_none_listed_at_all_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    resealed(tmp_path / "m", lambda config: config.update(sha256={}))
    with pytest.raises(ModelFileError, match="does not fit together"):
        Recommender.load(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelFileError, match="damaged"):
        Recommender.load(tmp_path / "m")


def test_a_faiss_index_that_does_not_fit_is_refused(tmp_path):
    vectors = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    FaissIndex.build("flat", vectors).write(tmp_path / "it")
    data = (tmp_path / "it").read_bytes()

    def read(content, items, width):
        return FaissIndex.checked("flat", opened(content), items, width)

    assert read(data, 100, 8).covers == 100
    for wrong in (
        lambda: read(data, 100, 9),
        lambda: read(data, 99, 8),
        lambda: read(data[:-9], 100, 8),
        lambda: read(b"", 100, 8),
    ):
        with pytest.raises(ModelFileError, match=r"index\.faiss"):
            wrong()
    dice = np.random.default_rng(0)
    for place in range(len(data) - 3300):  # the header: lengths, width, metric
        changed = bytearray(data)
        changed[place] ^= 1 << int(dice.integers(8))
        with suppress(ModelFileError):
            read(bytes(changed), 100, 8)
