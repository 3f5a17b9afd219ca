"""Files as people have them: kinds, separators, gzip, globs, folders, addresses, lists in cells; all give the same rows."""

import gzip
import json
from pathlib import Path

import fsspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mecold import Catalog, InvalidDataError
from mecold.data.files import files_of
from mecold.data.frames import INTERACTION_NAMES, read_frame
from mecold.data.interactions import Interactions

ROWS = pl.DataFrame(
    {"user_id": ["ann", "ann", "bob"], "item_id": ["x, 1", "y;2", "x, 1"], "timestamp": [3.0, 1.0, 2.0]}
)


def csv(frame: pl.DataFrame, separator: str = ",") -> bytes:
    return frame.write_csv(separator=separator, quote_style="non_numeric").encode()


def jsonl(frame: pl.DataFrame) -> bytes:
    return frame.write_ndjson().encode()


def parquet(path: Path) -> bytes:
    ROWS.write_parquet(path)
    return path.read_bytes()


def read(source: object) -> pl.DataFrame:
    return read_frame(source, "interactions", names=INTERACTION_NAMES)


WRITERS = {
    "a.csv": csv(ROWS), "a.csv.gz": gzip.compress(csv(ROWS)), "a.tsv": csv(ROWS, "\t"), "a.CSV": csv(ROWS, ";"),
    "bar.csv": csv(ROWS, "|"), "hive.csv": csv(ROWS, "\x01"), "a.jsonl": jsonl(ROWS), "a.ndjson.gz": gzip.compress(jsonl(ROWS)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_rows(name, tmp_path):
    (tmp_path / name).write_bytes(WRITERS[name])
    assert_frame_equal(read(tmp_path / name), ROWS)
    assert_frame_equal(read(str(tmp_path)), ROWS)  # the folder


@pytest.mark.parametrize("name", ["a.parquet", "a.pq", "a.arrow", "a.feather"])
def test_binary_kinds_give_the_same_rows(name, tmp_path):
    (ROWS.write_parquet if name.endswith(("parquet", "pq")) else ROWS.write_ipc)(tmp_path / name)
    assert_frame_equal(read(tmp_path / name), ROWS)


def test_a_glob_a_folder_and_a_home_are_read_in_order_of_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for place, name in enumerate(["day=1/b.parquet", "day=1/a.parquet", "day=2/a.parquet", "day=2/_SUCCESS"]):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        ROWS.with_columns(timestamp=pl.lit(float(place))).write_parquet(tmp_path / "in" / name)
    expected = [1.0] * 3 + [0.0] * 3 + [2.0] * 3
    for source in ("~/in", str(tmp_path / "in/*/*.parquet"), Path("~/in/**/*.parquet")):
        assert read(source)["timestamp"].to_list() == expected
    assert read("~/in/day=2/a.parquet")["timestamp"].to_list() == [2.0] * 3


def test_a_name_that_looks_like_a_glob_is_a_file_where_it_is_one(tmp_path):
    ROWS.write_parquet(tmp_path / "a[1].parquet")
    assert read(tmp_path / "a[1].parquet").height == 3


def test_a_remote_glob_loses_no_file_and_a_remote_folder_only_leftovers(tmp_path):
    system = fsspec.filesystem("memory")
    place = f"glob-{tmp_path.name}"
    names = ["a.csv", "abcd.csv", "abcde.csv", "_SUCCESS.csv", "deep/.part.csv"]
    for name in names:
        with system.open(f"/{place}/{name}", "wb") as file:
            file.write(b"user_id,item_id\na,b\n")
    for address in (f"memory://{place}/a*.csv", f"memory://{place}/*d*.csv", f"memory://{place}"):
        found = [Path(one.name).name for one in files_of(address, "log")]
        wanted = {"a*": names[:3], "*d": names[1:3]}.get(address.rsplit("/")[-1][:2], names[:3])
        assert found == wanted, address


def test_addresses_are_opened_by_fsspec_even_as_paths(tmp_path):
    system = fsspec.filesystem("memory")
    for day in (1, 2):
        system.pipe(f"/shop-{tmp_path.name}/day{day}.csv.gz", gzip.compress(csv(ROWS)))
        system.pipe(f"/shop-{tmp_path.name}/parquet/{day}.parquet", parquet(tmp_path / "a.parquet"))
    address = f"memory://shop-{tmp_path.name}"
    for source in (f"{address}/*.csv.gz", f"{address}/parquet", Path(f"{address}/parquet/*.parquet")):
        assert_frame_equal(read(source), pl.concat([ROWS, ROWS]))
    assert_frame_equal(read(f"{address}/day1.csv.gz"), ROWS)
    assert files_of(f"{address}/day1.csv.gz", "log")[0].stamp["bytes"] > 0


LONG = [("ann", "x", 1.0), ("ann", "y", 2.0), ("bob", "x", 5.0)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'user_id,items,times\nann,"x, y","1, 2"\nbob,x,5\n'),
        ("a.csv", "user_id,items,times\nann,x|y,1|2\nbob,x,5\n"),
        ("a.csv", 'user_id;items;times\nann;"[""x"", ""y""]";[1, 2]\nbob;["x"];[5]\n'.replace('["x"]', '"[""x""]"')),
        ("a.tsv", "user_id\titems\ttimes\nann\tx y\t1 2\nbob\tx\t5\n"),
        ("a.jsonl", '{"user_id":"ann","items":["x","y"],"times":[1,2]}\n{"user_id":"bob","items":["x"],"times":[5]}\n'),
        ("a.jsonl", '{"user_id":"ann","item_id":["x","y"],"timestamp":[1,2]}\n{"user_id":"bob","item_id":["x"],'
         '"timestamp":[5]}\n'),
    ],
)  # fmt: skip
def test_one_list_of_items_per_user_is_one_row_per_item(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    found = read(tmp_path / name)
    assert found.select("user_id", "item_id", pl.col("timestamp").cast(pl.Float64)).rows() == LONG


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lists=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True), min_size=1, max_size=8))
def test_lists_in_cells_are_histories_in_order(lists, tmp_path):
    catalog = Catalog.of(pl.Series("item_id", range(41)), [f"text {row}" for row in range(41)])
    frame = pl.DataFrame({"user_id": range(len(lists)), "items": lists})
    frame.with_columns(pl.col("items").cast(pl.List(pl.String)).list.join(" ")).write_csv(tmp_path / "a.csv")
    for source in (frame, tmp_path / "a.csv"):
        log = Interactions.read(source, catalog)
        assert [row.tolist() for row in log.split()] == lists
        assert log.order == "position"


def test_rows_of_one_user_in_several_lists_keep_their_order():
    frame = pl.DataFrame({"user_id": ["a", "b", "a"], "items": [[1, 2], [9], [3]]})
    assert read(frame).filter(user_id="a").sort("position")["item_id"].to_list() == [1, 2, 3]


def test_lists_that_do_not_fit_each_other_are_refused():
    with pytest.raises(InvalidDataError, match=r"1 of 2 rows .* different lengths"):
        read(pl.DataFrame({"user_id": [1, 2], "items": [[1, 2], [3]], "times": [[1.0], [2.0]]}))


def test_a_cell_that_is_no_list_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text('user_id,items\n1,"[1, 2"\n')
    with pytest.raises(InvalidDataError, match="no JSON list"):
        read(tmp_path / "a.csv")


def test_times_of_json_are_read_as_those_of_csv(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"user_id": "007", "item_id": "1", "timestamp": "2024-01-31"}) + "\n")
    found = read(tmp_path / "a.jsonl")
    assert found["timestamp"].dtype.is_temporal()
    assert found["user_id"].to_list() == ["007"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.xlsx"], "must end in"),
        (["a.csv", "b.parquet"], "several kinds"),
        ([], "no file in the folder"),
        (["a.parquet"], r"Cannot read the interactions from .*a\.parquet"),
        (["a.csv.gz"], r"Cannot read the interactions from .*a\.csv\.gz"),
        (["a.jsonl"], r"Cannot read the interactions from .*a\.jsonl"),
    ],
)
def test_what_cannot_be_read_is_named(names, message, tmp_path):
    for name in names:
        (tmp_path / name).write_bytes(b"\x1f\x8bnothing that could be read {")
    with pytest.raises(InvalidDataError, match=message):
        read(tmp_path)


def test_files_of_different_columns_are_refused(tmp_path):
    ROWS.write_csv(tmp_path / "a.csv")
    ROWS.drop("timestamp").write_csv(tmp_path / "b.csv")
    with pytest.raises(InvalidDataError, match=r"b\.csv' and .*a\.csv' have different columns: 'timestamp'"):
        read(tmp_path)


def test_an_address_without_its_package_says_so():
    with pytest.raises(InvalidDataError, match=r"needs a package|Cannot read"):
        read("nosuchscheme://bucket/a.csv")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.csv", "a.csv.gz", "a.jsonl"])
def test_batches_are_the_file_in_order(name, tmp_path):
    frame = pl.DataFrame({"user_id": [f"u{n // 7}" for n in range(3000)], "item_id": [str(n) for n in range(3000)]})
    write = {"parquet": frame.write_parquet, "arrow": frame.write_ipc}.get(name.split(".")[1])
    if write is None:
        data = csv(frame) if "csv" in name else jsonl(frame)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    else:
        write(tmp_path / name)
    (file,) = files_of(tmp_path / name, "log")
    batches = list(file.batches("log", 500))
    assert max(batch.height for batch in batches) <= 500
    assert_frame_equal(pl.concat(batches), frame)
