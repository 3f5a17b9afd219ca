"""Jobs: the lists are those of `recommend_batch`, row for row, whatever the input looks like, however often they are stopped."""

import gzip
import json
import re
import shlex
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from mecold import InvalidDataError, Recommender
from mecold.cli.main import app
from mecold.errors import ModelFileError
from mecold.jobs import Job, JobRefusedError, run
from mecold.jobs.job import Plan
from mecold.jobs.lists import whole_users
from mecold.jobs.scatter import hashes

from .conftest import bitwise

pytestmark = bitwise


@pytest.fixture(scope="module")
def model(fitted: Recommender, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "shop"
    fitted.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def log(shop) -> pl.DataFrame:
    """Rows of all users in no order, as they lie scattered over files."""
    return shop.interactions.sample(fraction=1.0, shuffle=True, seed=2)


@pytest.fixture
def spread(log: pl.DataFrame, tmp_path: Path) -> str:
    """The log in five files, no user in one alone."""
    (tmp_path / "in").mkdir()
    for at in range(5):
        log[at::5].write_parquet(tmp_path / f"in/{at}.parquet")
    return str(tmp_path / "in/*.parquet")


def rows_of(folder: Path | str) -> pl.DataFrame:
    """A job's lists as `recommend_batch` returns them, by user."""
    lists = pl.read_parquet(Path(folder) / "lists/*.parquet")
    long = lists.select("user_id", "items", "scores").explode("items", "scores").sort("user_id", maintain_order=True)
    return long.rename({"items": "item_id", "scores": "score"})


def by_user(found: pl.DataFrame) -> pl.DataFrame:
    return found.sort("user_id", maintain_order=True).drop("rank")


def content(folder: Path) -> dict[str, bytes]:
    """All that a job leaves, but for its lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write(form: str, log: pl.DataFrame, folder: Path) -> str:
    """The log in a form that people have; names the files."""
    folder.mkdir()
    ordered = log.sort("user_id", "timestamp", maintain_order=True)
    lists = ordered.group_by("user_id", maintain_order=True).agg("item_id", "timestamp")
    named = lists.rename({"item_id": "items", "timestamp": "times"})
    for at in range(3):
        rows, users = log[at::3], named[at::3]
        joined = users.with_columns(
            pl.col("items").list.join(" "), pl.col("times").cast(pl.List(pl.String)).list.join("|")
        )
        match form:
            case "parquet":
                rows.write_parquet(folder / f"{at}.parquet", row_group_size=700)
            case "arrow":
                rows.write_ipc(folder / f"{at}.arrow")
            case "semicolons, packed":
                (folder / f"{at}.csv.gz").write_bytes(gzip.compress(rows.write_csv(separator=";").encode()))
            case "jsonl":
                rows.write_ndjson(folder / f"{at}.jsonl")
            case "lists":
                users.write_parquet(folder / f"{at}.parquet")
            case "lists in jsonl":
                users.write_ndjson(folder / f"{at}.jsonl")
            case "lists in csv":
                joined.write_csv(folder / f"{at}.csv")
    return str(folder)


FORMS = ["parquet", "arrow", "semicolons, packed", "jsonl", "lists", "lists in jsonl", "lists in csv"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_histories_gives_the_lists_of_recommend_batch(form, model, log, fitted, tmp_path):
    source = write(form, log, tmp_path / "in")
    summary = run(Job(model=model, histories=source, out=str(tmp_path / "out"), k=7, parts=4))
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(fitted.recommend_batch(log, 7)))
    assert summary.users == summary.listed == log["user_id"].n_unique()
    assert summary.read == log.height
    assert sum(summary.shots.values()) == summary.users
    assert len(list((tmp_path / "out/lists").glob("*.parquet"))) == 4


def test_lists_without_times_are_in_the_order_of_the_lists(model, log, fitted, tmp_path):
    ordered = log.sort("user_id", "timestamp", maintain_order=True).drop("timestamp")
    lists = ordered.group_by("user_id", maintain_order=True).agg(pl.col("item_id").alias("items"))
    half = lists.with_columns(pl.col("items").list.head(3)), lists.with_columns(pl.col("items").list.slice(3))
    (tmp_path / "in").mkdir()
    for at, part in enumerate(half):  # a user's list goes on in the next file; an empty rest is no mistake
        part.write_parquet(tmp_path / f"in/{at}.parquet")
    summary = run(Job(model=model, histories=str(tmp_path / "in"), out=str(tmp_path / "out"), parts=3))
    expected = fitted.recommend_batch(ordered.with_columns(position=pl.int_range(pl.len()).over("user_id")), 10)
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(expected))
    assert summary.clean


def test_integer_ids_of_users_come_back_as_integers(model, log, fitted, tmp_path):
    numbered = log.with_columns(user_id=pl.col("user_id").str.slice(1).cast(pl.Int64))
    numbered.write_csv(tmp_path / "log.csv")
    users = pl.DataFrame({"user_id": [9001, 9002]})
    users.write_csv(tmp_path / "users.csv")
    run(
        Job(
            model=model,
            histories=str(tmp_path / "log.csv"),
            users=str(tmp_path / "users.csv"),
            out=str(tmp_path / "out"),
            parts=3,
        )
    )
    expected = fitted.recommend_batch(numbered, 10, users=[9001, 9002])
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(expected))


def some_pairs(log: pl.DataFrame, items: list[str], each: int) -> pl.DataFrame:
    users = log["user_id"].unique().sort()[::2]
    rng = np.random.default_rng(3)
    return pl.DataFrame({"user_id": np.repeat(users.to_numpy(), each), "item_id": rng.choice(items, len(users) * each)})


@pytest.mark.parametrize(
    "settings",
    [
        {"exclude": "some"}, {"exclude": "pairs"}, {"among": "some"}, {"among": "pairs"}, {"include_seen": True},
        {"diversity": 0.4}, {"groups": "groups", "per_group": 2}, {"users": ["new one", "new two"]},
        {"among": "pairs", "exclude": "some", "include_seen": True, "users": ["new one"]},
    ],
)  # fmt: skip
def test_every_setting_gives_the_lists_of_recommend_batch(settings, model, spread, log, shop, fitted, tmp_path):
    items = shop.items["item_id"].to_list()
    tables = {
        "some": pl.DataFrame({"item_id": items[::3]}), "pairs": some_pairs(log, items, 25),
        "groups": pl.DataFrame({"item_id": items, "brand": [item[-1] for item in items]}),
    }  # fmt: skip
    for name, table in tables.items():
        table.write_csv(tmp_path / f"{name}.csv")
    pl.DataFrame({"user_id": settings.get("users", [])}, schema={"user_id": pl.String}).write_csv(
        tmp_path / "users.csv"
    )
    files = {name: str(tmp_path / f"{'users' if name == 'users' else value}.csv") for name, value in settings.items()
             if name in ("exclude", "among", "groups", "users")}  # fmt: skip
    run(Job(model=model, histories=spread, out=str(tmp_path / "out"), k=6, parts=3, **settings | files))
    frames = {name: tables.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
    given = {name: value["item_id"].to_list() if name in ("exclude", "among") and "user_id" not in value.columns else value
             for name, value in frames.items()}  # fmt: skip
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(fitted.recommend_batch(log, 6, **given)))


def test_a_least_score_and_a_cut_history(model, spread, log, fitted, tmp_path):
    job = Job(model=model, histories=spread, out=str(tmp_path / "out"), min_score=25.0, max_history=4, parts=2)
    run(job)
    newest = log.sort("timestamp", maintain_order=True).group_by("user_id", maintain_order=True).tail(4)
    expected = by_user(fitted.recommend_batch(newest, 10)).filter(pl.col("score") >= 25.0)
    assert 0 < expected.height < 10 * log["user_id"].n_unique()
    assert_frame_equal(rows_of(tmp_path / "out"), expected)


def test_the_long_form_is_that_of_recommend_batch(model, spread, log, fitted, tmp_path):
    run(Job(model=model, histories=spread, out=str(tmp_path / "out"), long=True, shots=True, fingerprint=True, parts=3))
    found = pl.read_parquet(tmp_path / "out/lists/*.parquet").sort("user_id", maintain_order=True)
    expected = fitted.recommend_batch(log, 10).sort("user_id", maintain_order=True)
    assert_frame_equal(found.select(expected.columns), expected)
    assert found["model"].unique().to_list() == [fitted.info()["model"]]
    known = log.group_by("user_id").agg(pl.col("item_id").n_unique().cast(pl.Int32).alias("shots"))
    assert found.select("user_id", "shots").unique().sort("user_id").equals(known.sort("user_id"))


def test_because_is_what_explain_says(model, spread, log, fitted, tmp_path):
    run(Job(model=model, histories=spread, out=str(tmp_path / "out"), k=3, because=2, parts=2))
    found = pl.read_parquet(tmp_path / "out/lists/*.parquet")
    for user in found["user_id"].unique().sort()[::50]:
        history = log.filter(user_id=user).sort("timestamp")["item_id"].to_list()
        items, reasons = found.filter(user_id=user).select("items", "because").row(0)
        for item, because in zip(items, reasons, strict=True):
            told = dict(fitted.explain(history, item).contributions)
            best = [one for one, gain in sorted(told.items(), key=lambda pair: -pair[1]) if gain > 0][:2]
            np.testing.assert_allclose([told[one] for one in because], [told[one] for one in best], rtol=1e-4)


def test_shards_share_the_users_among_them(model, spread, log, fitted, tmp_path):
    for at in (1, 2, 3):
        run(Job(model=model, histories=spread, out=str(tmp_path / "out"), shard=(at, 3), parts=2))
    found = [rows_of(folder) for folder in sorted((tmp_path / "out").glob("shard-*-of-3"))]
    assert len(found) == 3
    assert all(part.height for part in found)
    together = pl.concat(found).sort("user_id", maintain_order=True)
    assert_frame_equal(together, by_user(fitted.recommend_batch(log, 10)))


# ---- what cannot be used


BROKEN = """user_id,item_id,timestamp,weight
ann,p1,1,1
ann,p2,2024-13-01,1
,p3,3,1
bob,,4,1
bob,p4,5,-1
eve,nobody's,6,1
eve,p5,7,1
eve,p6,,1
ann,p7,8,inf
"""


def test_broken_rows_are_set_aside_with_reasons_and_their_users_are_not_lost(model, fitted, tmp_path):
    (tmp_path / "log.csv").write_text(BROKEN)
    job = Job(model=model, histories=str(tmp_path / "log.csv"), out=str(tmp_path / "out"), max_rejected=0.9, parts=2)
    summary = run(job)
    found = pl.read_parquet(tmp_path / "out/rejected.parquet").sort("row", nulls_last=True)
    assert found.select("row", "user_id", "item_id", "reason").rows() == [
        (1, "ann", "p2", "timestamp cannot be read, or is not finite"),
        (2, None, "p3", "no user_id"),
        (3, "bob", None, "no item_id"),
        (4, "bob", "p4", "weight is not positive"),
        (5, "eve", "nobody's", "unknown item"),
        (8, "ann", "p7", "weight cannot be read, or is not finite"),
        (None, "eve", "p6", "no timestamp"),
    ]
    assert summary.rejected["histories: unknown item"] == 1
    assert sum(summary.rejected.values()) == 7
    good = pl.DataFrame({"user_id": ["ann", "eve"], "item_id": ["p1", "p5"], "timestamp": [1, 7]})
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(fitted.recommend_batch(good, 10, users=["bob"])))


def test_more_broken_rows_than_are_allowed_refuse_the_job(model, tmp_path):
    (tmp_path / "log.csv").write_text(BROKEN)
    with pytest.raises(InvalidDataError, match=r"7 of 9 rows .*unknown item: 1.*max_rejected=0.1 allows 10%"):
        run(Job(model=model, histories=str(tmp_path / "log.csv"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out/summary.json").exists()


def test_what_else_stands_in_a_table_of_pairs_or_users_changes_nothing(model, log, fitted, tmp_path):
    log.write_parquet(tmp_path / "log.parquet")
    users = log["user_id"].unique().sort()
    pairs = pl.DataFrame({"user_id": users[:40], "item_id": ["p7"] * 39 + ["unheard of"], "rating": 4.0})
    pairs.with_columns(timestamp=pl.lit("2024-01-01"), label=pl.lit("no")).write_csv(tmp_path / "pairs.csv")
    lists = pairs[:39].group_by("user_id", maintain_order=True).agg(items=pl.col("item_id"))
    lists.write_parquet(tmp_path / "lists.parquet")
    (tmp_path / "users.csv").write_text("user_id,position,label\nnobody,manager,vip\n")
    found = []
    for name in ("pairs.csv", "lists.parquet"):
        out = tmp_path / f"out-{name}"
        tables = {"users": str(tmp_path / "users.csv"), "exclude": str(tmp_path / name)}
        run(Job(model, str(tmp_path / "log.parquet"), str(out), parts=3, **tables))
        found.append(rows_of(out))
    expected = by_user(
        fitted.recommend_batch(log, 10, users=["nobody"], exclude=pairs[:39].select("user_id", "item_id"))
    )
    for one in found:
        assert_frame_equal(one, expected)


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_a_user_with_an_empty_list_gets_a_list(form, model, fitted, tmp_path):
    table = pl.DataFrame(
        {"user_id": ["ann", "bob"], "items": [["p1", "p2"], []]}, schema_overrides={"items": pl.List(pl.String)}
    )
    path = tmp_path / f"log.{form}"
    if form == "parquet":
        table.write_parquet(path)
    elif form == "jsonl":
        table.write_ndjson(path)
    else:
        path.write_text("user_id;items\nann;p1 p2\nbob;[]\n")
    run(Job(model, str(path), str(tmp_path / "out"), parts=1))
    good = pl.DataFrame({"user_id": ["ann", "ann"], "item_id": ["p1", "p2"], "position": [0, 1]})
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(fitted.recommend_batch(good, 10, users=["bob"])))


@pytest.mark.parametrize("parts", [1, 8])
def test_a_column_that_some_files_lack_sets_their_rows_aside(parts, model, fitted, tmp_path):
    """However many parts there are, and whoever falls into one of them."""
    rows = pl.DataFrame({"user_id": [f"u{at}" for at in range(20)], "item_id": "p1", "timestamp": range(20)})
    (tmp_path / "in").mkdir()
    rows.write_parquet(tmp_path / "in/0.parquet")
    pl.DataFrame({"user_id": ["late"], "item_id": ["p2"]}).write_parquet(tmp_path / "in/1.parquet")
    job = Job(model, str(tmp_path / "in"), str(tmp_path / "out"), parts=parts)
    assert run(job).rejected == {"histories: no timestamp": 1}
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(fitted.recommend_batch(rows, 10, users=["late"])))
    rows.drop("timestamp").write_parquet(tmp_path / "in/2.parquet")
    with pytest.raises(InvalidDataError, match=r"21 of 41 rows .*no timestamp: 21"):
        run(replace(job, out=str(tmp_path / "again")))


def test_a_refused_job_does_not_stand_in_its_own_way(model, tmp_path):
    (tmp_path / "log.csv").write_text(BROKEN)
    job = Job(model, str(tmp_path / "log.csv"), str(tmp_path / "out"))
    with pytest.raises(ModelFileError, match="no model in"):
        run(replace(job, model=str(tmp_path / "nothing")))
    with pytest.raises(InvalidDataError, match="max_rejected"):
        run(job)
    (tmp_path / "log.csv").write_text("user_id,item_id\nann,p1\n")
    assert run(job).users == 1
    (tmp_path / "out/lists/part-00000.parquet").unlink()
    assert run(job).users == 1 and (tmp_path / "out/lists/part-00000.parquet").exists()


def test_where_lists_cannot_go_is_said_at_once(model, spread, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JobRefusedError, match="is a file"):
        run(Job(model, spread, str(tmp_path / "file")))
    with pytest.raises(InvalidDataError, match="would be read back"):
        run(Job(model, str(tmp_path / "in"), str(tmp_path / "in/out")))
    with pytest.raises(InvalidDataError, match="per_group"):
        run(Job(model, spread, str(tmp_path / "out"), per_group=2))
    assert not list((tmp_path / "out/.work").glob("group-*"))


def test_users_without_a_history_make_parts_too(model, tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\n1,p1\n")
    pl.DataFrame({"user_id": range(1_000_000)}).write_parquet(tmp_path / "users.parquet")
    job = Job(model, str(tmp_path / "log.csv"), str(tmp_path / "out"), users=str(tmp_path / "users.parquet"))
    assert Plan.of(job).parts > 8


@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [("01", "integer", "`types` says: '01'"), ("9999999999999999999", "integer", "`types` says")],
)
def test_ids_of_another_type_than_is_said_are_named(ids, kind, message, model, tmp_path):
    (tmp_path / "log.csv").write_text(f"user_id,item_id\n{ids},p1\n")
    with pytest.raises(InvalidDataError, match=message):
        run(Job(model, str(tmp_path / "log.csv"), str(tmp_path / "out"), types={"user_id": kind}))


@pytest.mark.parametrize(
    ("log", "settings", "message"),
    [
        ("user_id,thing\na,p1\n", {}, "no column 'item_id'"),
        ("user_id,item_id\na,p1\n", {"max_history": 3}, "nothing orders"),
        ("user_id,item_id,timestamp\na,p1,3\nb,p1,2024-01-01\n", {}, "as numbers and as dates"),
        ("user_id,item_id\na,p1\n", {"columns": {"user_id": "customer"}}, "no file has such a column"),
        ("user_id,item_id\na,nothing\n", {}, "1 of 1 rows of the histories cannot be used"),
    ],
)
def test_histories_that_make_no_sense_are_refused(log, settings, message, model, tmp_path):
    (tmp_path / "log.csv").write_text(log)
    with pytest.raises(InvalidDataError, match=message):
        run(Job(model=model, histories=str(tmp_path / "log.csv"), out=str(tmp_path / "out"), **settings))


def test_a_damaged_row_group_is_fatal_and_its_file_is_named(model, spread, tmp_path):
    path = tmp_path / "in/3.parquet"
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidDataError, match=r"in/3\.parquet"):
        run(Job(model=model, histories=spread, out=str(tmp_path / "out")))


def test_nobody_gets_nothing(model, tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\n")
    summary = run(Job(model=model, histories=str(tmp_path / "log.csv"), out=str(tmp_path / "out")))
    assert (summary.users, summary.parts) == (0, 8)


# ---- stopped, and gone on with


def test_what_has_changed_is_refused_and_named(model, spread, log, own, tmp_path):
    done = Job(model=model, histories=spread, out=str(tmp_path / "out"), parts=2)
    run(done)
    before = content(tmp_path / "out")
    with pytest.raises(JobRefusedError, match="k was 10, now 11"):
        run(Job(model=model, histories=spread, out=str(tmp_path / "out"), parts=2, k=11))
    own.hide_items(["p1"])
    own.save(tmp_path / "other")
    with pytest.raises(JobRefusedError, match="model was"):
        run(Job(model=str(tmp_path / "other"), histories=spread, out=str(tmp_path / "out"), parts=2))
    log[:100].write_parquet(tmp_path / "in/1.parquet")
    with pytest.raises(JobRefusedError, match=r"in/1\.parquet' has changed"):
        run(done)
    assert content(tmp_path / "out") == before
    assert run(done, restart=True).read < log.height


def test_a_folder_that_is_no_jobs_is_left_alone(model, spread, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.doc").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(JobRefusedError, match=r"thesis\.doc"):
            run(Job(model=model, histories=spread, out=str(tmp_path / "out")), restart=restart)
    assert (tmp_path / "out/thesis.doc").exists()


def test_two_processes_do_not_work_in_one_folder(model, spread, tmp_path):
    job = Job(model=model, histories=spread, out=str(tmp_path / "out"), parts=2)

    def again(what: dict[str, object]) -> None:
        if what["event"] == "sorted":
            with pytest.raises(JobRefusedError, match="Another process works"):
                run(job)

    run(job, hear=again)


def test_a_part_that_was_lost_or_cut_is_made_again_and_leftovers_go(model, spread, tmp_path):
    job = Job(model=model, histories=spread, out=str(tmp_path / "out"), parts=4)

    class EnoughError(Exception):
        pass

    def stop(what: dict[str, object]) -> None:
        if what["event"] == "part" and what["done"] == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        run(job, hear=stop)
    parts = sorted((tmp_path / "out/lists").glob("part-*"))
    parts[0].write_bytes(parts[0].read_bytes()[:100])
    parts[1].unlink()
    (tmp_path / "out/lists/.part-00000.parquet.dead.new").write_text("half")
    run(job)
    assert not list((tmp_path / "out").rglob("*.new"))
    whole = Job(model=model, histories=spread, out=str(tmp_path / "whole"), parts=4)
    run(whole)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_forty_kills_leave_what_an_undisturbed_job_leaves(model, spread, tmp_path):
    """A small process forks the jobs and kills them, since one that has used polars cannot fork."""
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), model, spread, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 40
    expected = content(tmp_path / "whole")
    assert len(expected) == 8 + 2
    for at in range(told["rounds"]):
        assert content(tmp_path / f"round-{at}") == expected


# ---- the command line


def command(*given: str) -> list[str]:
    return [sys.executable, "-c", "from mecold.cli.main import app; app()", "batch", *given]


def test_a_full_disk_stops_a_job_and_room_lets_it_go_on(model, spread, tmp_path):
    (tmp_path / "out").mkdir()
    mount = f"mount -t tmpfs -o size=140k none {tmp_path / 'out'}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount")
    asked = command(model, "--histories", spread, "--out", str(tmp_path / "out/job"), "--parts", "8")
    script = f'{mount}; "$@"; echo first $?; mount -o remount,size=9m {tmp_path / "out"}; "$@"; echo second $?; '
    script += f"cp -r {tmp_path / 'out/job'} {tmp_path / 'copy'}"
    found = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *asked], capture_output=True, text=True, check=False
    )
    assert "first 75" in found.stdout, found.stderr
    assert "disk is full" in found.stderr
    assert "second 0" in found.stdout
    run(Job(model=model, histories=spread, out=str(tmp_path / "whole"), parts=8))
    assert content(tmp_path / "copy") == content(tmp_path / "whole")


def test_a_job_that_is_asked_to_stop_says_so_and_goes_on_later(model, spread, tmp_path):
    asked = command(
        model, "--histories", spread, "--out", str(tmp_path / "out"), "--parts", "60", "--because", "5", "--json"
    )
    job = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None
    next(line for line in job.stdout if '"part"' in line)
    job.terminate()
    _, told = job.communicate(timeout=60)
    assert job.returncode == 75
    assert "same command goes on" in told
    assert not (tmp_path / "out/summary.json").exists()
    assert subprocess.run(asked, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "out/summary.json").exists()


def test_exit_codes_tell_a_scheduler_what_happened(model, spread, log, fitted, tmp_path):
    asked = ["batch", model, "-k", "4", "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*asked, "--histories", spread, "--json"])
    assert found.exit_code == 0
    events = [json.loads(line) for line in found.stdout.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "summary"]
    assert {"users_per_second", "seconds_left"} <= set(events[-3])
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(fitted.recommend_batch(log, 4)))
    assert CliRunner().invoke(app, [*asked, "--histories", spread]).exit_code == 0  # nothing left to do
    refused = CliRunner().invoke(app, [*asked, "--histories", spread, "--diversity", "0.5"])
    assert refused.exit_code == 1
    (tmp_path / "broken.csv").write_text(BROKEN)
    asked[-1] = str(tmp_path / "rejects")
    found = CliRunner().invoke(app, [*asked, "--histories", str(tmp_path / "broken.csv"), "--max-rejected", "1"])
    assert found.exit_code == 3
    assert CliRunner().invoke(app, [*asked, "--histories", spread, "--shard", "one"]).exit_code == 1


def test_columns_of_all_files_are_mapped(model, log, fitted, tmp_path):
    log.rename({"user_id": "customer", "item_id": "sku"}).write_csv(tmp_path / "log.csv", separator=";")
    found = CliRunner().invoke(
        app, ["batch", model, "--histories", str(tmp_path / "log.csv"), "--out", str(tmp_path / "out"),
              "--column", "user_id=customer", "--column", "item_id=sku"],
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert_frame_equal(rows_of(tmp_path / "out"), by_user(fitted.recommend_batch(log, 10)))


# ---- parts


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12), cut=st.integers(1, 5))
def test_no_batch_cuts_a_user_in_two(sizes, cut):
    table = pl.DataFrame({"user_id": np.repeat(np.arange(len(sizes)), sizes)}).with_row_index("row")
    found = list(whole_users(table[at : at + cut] for at in range(0, table.height, cut)))
    assert_frame_equal(pl.concat(found), table)
    users = [set(batch["user_id"]) for batch in found]
    assert sum(map(len, users)) == len(sizes)


@given(ids=st.lists(st.one_of(st.text(max_size=5)), max_size=20))
def test_the_hash_of_an_id_is_the_same_everywhere(ids):
    assert hashes(pl.Series(ids, dtype=pl.String)).tolist() == [zlib.crc32(one.encode()) for one in ids]
    numbers = pl.Series([len(one) for one in ids], dtype=pl.Int64)
    assert hashes(numbers).tolist() == hashes(numbers.cast(pl.String)).tolist()


@pytest.mark.parametrize("name", ["crontab", "airflow_dag.py", "kubernetes.yaml"])
def test_the_commands_of_the_schedulers_are_understood(name):
    """As far as the command line: options that are gone or renamed would be refused."""
    text = (Path(__file__).parents[1] / "examples/schedulers" / name).read_text()
    words = re.search(
        r"mecold batch (.*?)\|\| test", text.replace('"\n            "', " ").replace("{{ ds }}", "day"), re.DOTALL
    )[1]
    asked = shlex.split(words.partition(">>")[0].replace("$((JOB_COMPLETION_INDEX + 1))", "1"))
    context = typer.main.get_command(app).commands["batch"].make_context("batch", asked)
    assert context.params["k"] == 20 and context.params["histories"] == "/srv/shop/log/*.parquet".removeprefix(
        "/srv/shop/" if name == "crontab" else ""
    )
