"""Jobs on a Ray cluster of two machines, one of which is lost (`make hosts`); the lists are those of `recommend_batch`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

ray = pytest.importorskip("ray", reason="Ray has an environment of its own: make hosts")

from ray.cluster_utils import Cluster
from typer.testing import CliRunner

from mecold import Recommender
from mecold.cli.main import app
from mecold.errors import InvalidDataError
from mecold.jobs import Job, run
from mecold.jobs.on_ray import actors

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two machines, as far as Ray can tell; what the first has no room for is done on the second."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    made.add_node(num_cpus=2, object_store_memory=100 << 20)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def made(fitted: Recommender, shop, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    fitted.save(folder / "model")
    (folder / "in").mkdir()
    log = shop.interactions.sample(fraction=1.0, shuffle=True, seed=2)
    for at in range(4):
        log[at::4].write_parquet(folder / f"in/{at}.parquet")
    return folder


def job(made: Path, out: str, **settings: object) -> Job:
    return Job(model=str(made / "model"), histories=str(made / "in"), out=str(made / out), parts=24, **settings)


def workers_on(node: str) -> list[str]:
    """Actors that are alive on a machine."""
    found = ray._private.state.actors()
    return [name for name, one in found.items() if one["State"] == "ALIVE" and one["Address"]["NodeID"] == node]


def sums(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_a_lost_machine_costs_nothing_but_time(cluster, made, fitted, shop):
    second = next(node for node in cluster.list_all_nodes() if node != cluster.head_node)
    lost = []

    def lose(what: dict[str, object]) -> None:
        if what["event"] == "part" and what["done"] == 3:
            lost.extend(workers_on(second.node_id))
            cluster.remove_node(second, allow_graceful=False)

    run(job(made, "ray", because=3), engine=actors, hear=lose)
    assert lost, "nobody worked on the machine that was lost"
    run(job(made, "local", because=3))
    assert sums(made / "ray") == sums(made / "local")
    found = (
        pl.read_parquet(made / "ray/lists/*.parquet").select("user_id", "items", "scores").explode("items", "scores")
    )
    expected = fitted.recommend_batch(shop.interactions, 10).select("user_id", items="item_id", scores="score")
    assert_frame_equal(*(one.sort("user_id", maintain_order=True) for one in (found, expected)))


def test_the_command_line_takes_the_engine(cluster, made, shop):
    asked = [
        "batch",
        str(made / "model"),
        "--histories",
        str(made / "in"),
        "--out",
        str(made / "cli"),
        "--engine",
        "ray",
    ]
    found = CliRunner().invoke(app, [*asked, "--parts", "4"])
    assert found.exit_code == 0, found.output
    assert pl.read_parquet(made / "cli/lists/*.parquet").height == shop.interactions["user_id"].n_unique()


def test_what_cannot_be_used_is_told_as_on_one_machine(cluster, made):
    (made / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidDataError, match=r"bad\.parquet"):
        run(Job(model=str(made / "model"), histories=str(made / "bad.parquet"), out=str(made / "bad")), engine=actors)
