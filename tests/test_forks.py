"""Processes that were forked: what a child can do it does, and the rest says so; nothing waits for ever."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mecold.forks import OwnLock
from mecold.lazy import cached_property
from mecold.threads import quota, usable

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

SERVE = """
import os, sys, json, signal, warnings
sys.path.insert(0, {root!r})
warnings.simplefilter("ignore")
os.environ.pop("OMP_NUM_THREADS", None)
import numpy as np, polars as pl, torch
torch.set_num_threads({threads})
from mecold import ForkError, Recommender
if {lazily}:  # the parent has the package, and no model
    load = lambda: Recommender.load({folder!r})
else:
    made = Recommender.load({folder!r})
    load = lambda: made
warm = lambda r: r.recommend(r.adapt_user(["p1", "p2"]), 5)
if {warmed}:
    warm(load())
    load().recommend_batch(pl.DataFrame({{"user_id": ["a"], "item_id": ["p1"]}}), 3)

def child():
    r = load()
    u = r.adapt_user(["p1", "p2"])
    found = {{"lists": [[one.item for one in call()] for call in (
        lambda: r.recommend(u, 5), lambda: r.similar_items("p3", 5), lambda: r.recommend(u, 5, diversity=0.3),
        lambda: r.recommend(u, 5, include_seen=True, among=["p1", "p4"]))],
        "score": float(r.scores(u, ["p4"])[0]), "why": r.explain(["p1"], "p4").item, "threads": torch.get_num_threads()}}
    r.hide_items(["p9"]); r.show_items(["p9"]); r.remove_items([f"p{{n}}" for n in range(100, 190)])
    found["left"] = len(r.item_ids())
    big = torch.randn(600, 600) @ torch.randn(600, 600)  # large enough for many threads
    found["refused"] = []
    log = pl.DataFrame({{"user_id": ["a"], "item_id": ["p1"]}})
    for name, call in (("recommend_batch", lambda: r.recommend_batch(log, 3)), ("adapt_users", lambda: r.adapt_users(log)),
                       ("save", lambda: r.save({again!r} + str(os.getpid()))), ("load", lambda: Recommender.load({folder!r}))):
        try:
            call()
        except ForkError as error:
            assert "spawn" in str(error)
            found["refused"].append(name)
    return found

children = []
for _ in range(3):
    end, start = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        os.write(start, json.dumps(child()).encode())
        os._exit(0)
    os.close(start)
    children.append((pid, end))
answers = []
for pid, end in children:
    with os.fdopen(end) as stream:
        answers.append(stream.read())
    assert os.waitpid(pid, 0)[1] == 0, "a child did not answer"
print(json.dumps([json.loads(one) for one in answers]))
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("parent", ["loaded", "warmed", "lazily"])
def test_forked_workers_serve_whatever_their_parent_did(fitted, tmp_path, threads, parent):
    check_children(fitted, tmp_path, threads, parent)


@pytest.mark.parametrize("threads", [1, 2])
def test_forked_workers_search_through_faiss(shop, fit, tmp_path, threads):
    check_children(fit(shop.interactions, shop.items, index="IVF4,SQ8"), tmp_path, threads, "warmed")


def check_children(fitted, tmp_path, threads, parent):
    fitted.save(tmp_path / "m")
    script = SERVE.format(
        root=str(ROOT), folder=str(tmp_path / "m"), threads=threads, warmed=parent == "warmed", lazily=parent == "lazily",
        again=str(tmp_path / "again"),
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    user = fitted.adapt_user(["p1", "p2"])
    for found in json.loads(done.stdout):
        assert found["lists"][0] == [one.item for one in fitted.recommend(user, 5)]
        assert found["lists"][1] == [one.item for one in fitted.similar_items("p3", 5)]
        assert found["left"] == 210
        assert found["threads"] == 1
        assert found["refused"] == ([] if parent == "lazily" else ["recommend_batch", "adapt_users", "save", "load"])


def test_a_lock_that_a_thread_of_the_parent_holds_is_free_in_the_child():
    lock, held, done = OwnLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        with lock:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    done.set()
    holder.join()


def group(root, lines, files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("\n".join(lines))
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        (["0::/"], {"cpu.max": "150000 100000\n"}, 1.5),
        (["0::/a/b"], {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
        (["0::/a/b"], {"a/cpu.max": "max 100000\n"}, None),
        (["4:cpu,cpuacct:/x"], {"cpu,cpuacct/x/cpu.cfs_quota_us": "300000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 3.0),
        (["1:cpu:/elsewhere"], {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        (["1:cpu:/"], {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (["2:memory:/"], {"cpu.max": "100000 100000"}, None),
        (["0::/"], {"cpu.max": "nonsense"}, None),
    ],
)  # fmt: skip
def test_a_quota_of_the_control_group_is_read(tmp_path, lines, files, expected):
    root = group(tmp_path, lines, files)
    assert quota(root) == expected
    assert 1 <= usable(root) <= max(1, len(os.sched_getaffinity(0)))
    if expected == 0.5:
        assert usable(root) == 1


SETTING = """
import sys
sys.path.insert(0, {root!r})
import mecold, torch, polars as pl, faiss
from mecold.space.faiss_library import faiss_library
from threadpoolctl import threadpool_info
faiss_library()
print(torch.get_num_threads(), faiss.omp_get_max_threads(), pl.thread_pool_size(),
      max([one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"] or [1]))
"""


@pytest.mark.parametrize("count", [1, 2])
def test_one_setting_governs_all_libraries(count):
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", SETTING.format(root=str(ROOT))], env={**clean, "MECOLD_THREADS": str(count)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(count)] * 4


def test_a_process_that_may_run_on_one_processor_uses_one_thread():
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    script = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n{SETTING.format(root=str(ROOT))}"
    done = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] * 4


class Slow:
    started, done = threading.Event(), threading.Event()

    @cached_property
    def value(self):
        self.started.set()
        self.done.wait(0 if os.getpid() != PARENT else 30)
        return 1


PARENT = os.getpid()


def test_what_a_thread_of_the_parent_computes_meanwhile_the_child_can_compute():
    holder = threading.Thread(target=lambda: Slow().value)
    holder.start()
    Slow.started.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        os._exit(0 if Slow().value == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    Slow.done.set()
    holder.join()
