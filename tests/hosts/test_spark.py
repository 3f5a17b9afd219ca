"""Lists by Spark on a cluster of two executors, one of which is killed (`make hosts`); they are those of `recommend_batch`."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

pyspark = pytest.importorskip("pyspark", reason="Spark has an environment of its own: make hosts")

from pyspark.sql import SparkSession

from mecold import InvalidDataError, Recommender
from mecold_adapters.spark import recommend

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """A master and two executors, each a process of its own."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    made = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.ui.enabled", "false")
        .config("spark.executor.memory", "512m")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "97")  # batches that cut users in two
        .getOrCreate()
    )
    made.sparkContext.setLogLevel("OFF")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def model(fitted: Recommender, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spark") / "model"
    fitted.save(folder)
    return folder


@pytest.fixture(scope="module")
def log(shop) -> pl.DataFrame:
    """Rows in any order, without two at one time."""
    order = ["user_id", "timestamp", "item_id"]
    return shop.interactions.unique(order[:2], keep="first").sort(order).sample(fraction=1.0, shuffle=True, seed=2)


def table(spark: SparkSession, frame: pl.DataFrame):
    return spark.createDataFrame(frame.rows(), schema=frame.columns)


def listed(found) -> pl.DataFrame:
    rows = [(row.user_id, list(row["items"]), list(row.scores)) for row in found.collect()]
    frame = pl.DataFrame(rows, ["user_id", "item_id", "score"], orient="row").explode("item_id", "score")
    return frame.sort("user_id", maintain_order=True).cast({"score": pl.Float32})


def expected(fitted: Recommender, log: pl.DataFrame, **settings) -> pl.DataFrame:
    found = fitted.recommend_batch(log.sort("user_id", "timestamp"), 10, **settings)
    return found.select("user_id", "item_id", "score").sort("user_id", maintain_order=True)


def test_lists_are_those_of_recommend_batch(spark, model, log, fitted):
    found = recommend(table(spark, log), model, users=table(spark, pl.DataFrame({"user_id": ["nobody", "u1"]})))
    assert_frame_equal(listed(found), expected(fitted, log, users=["nobody"]))


def test_settings_reach_every_executor(spark, model, log, fitted):
    bought = log["item_id"].unique().sort().to_list()
    settings = {"among": bought[:50], "include_seen": True, "diversity": 0.3}
    found = recommend(table(spark, log), model, min_score=-1e9, because=2, **settings)
    assert found.columns == ["user_id", "items", "scores", "because"]
    assert_frame_equal(listed(found), expected(fitted, log, **settings))


def command_of(process):
    """The command of a process; nothing where it has ended meanwhile, or is a zombie."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_killed_executor_costs_no_list(spark, model, log, fitted):
    found, fail = [], []

    def work():
        try:
            found.append(listed(recommend(table(spark, log), model, partitions=60)))
        except Exception as error:  # told below, by the thread that asks
            fail.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    tracker, killed = spark.sparkContext.statusTracker(), None
    while thread.is_alive() and killed is None:
        for stage in tracker.getActiveStageIds():
            info = tracker.getStageInfo(stage)
            if info is not None and info.numTasks == 60 and 3 <= info.numCompletedTasks < 50:
                executors = [
                    one for one in psutil.Process().children(recursive=True)
                    if "CoarseGrainedExecutorBackend" in command_of(one)
                ]  # fmt: skip
                killed = executors[0].pid
                os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    thread.join()
    assert killed is not None
    assert not fail, fail
    assert_frame_equal(found[0], expected(fitted, log))


def test_what_cannot_be_used_is_said_before_spark_starts(spark, model, log):
    with pytest.raises(InvalidDataError, match="no column 'item_id'"):
        recommend(table(spark, log.select("user_id")), model)
    with pytest.raises(InvalidDataError, match="nothing orders them"):
        recommend(table(spark, log.select("user_id", "item_id")), model, max_history=3)
