"""Files in a bucket: a local server that speaks S3 (moto's, a stand-in for the real one), read through s3fs (`make hosts`)."""

from collections.abc import Iterator

import polars as pl
import pytest
from polars.testing import assert_frame_equal

s3fs = pytest.importorskip("s3fs", reason="s3fs has an environment of its own: make hosts")

from moto.server import ThreadedMotoServer

from mecold import InvalidDataError
from mecold.data.frames import read_frame
from mecold.jobs import Job, run


@pytest.fixture(scope="module")
def bucket(shop) -> Iterator[str]:
    """A log in three files, and a folder of its own for csv."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "me"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):  # fmt: skip
            patch.setenv(name, value)
        system = s3fs.S3FileSystem()
        system.mkdir("shop")
        for at in range(3):
            with system.open(f"shop/log/{at}.parquet", "wb") as file:
                shop.interactions[at::3].write_parquet(file)
        with system.open("shop/csv/log.csv.gz", "wb", compression="gzip") as file:
            file.write(shop.interactions.write_csv().encode())
        yield "s3://shop"
    server.stop()


def test_a_job_reads_a_bucket_as_it_reads_a_folder(bucket, fitted, shop, tmp_path):
    fitted.save(tmp_path / "model")
    run(Job(str(tmp_path / "model"), f"{bucket}/log/*.parquet", str(tmp_path / "out"), parts=4))
    found = pl.read_parquet(tmp_path / "out/lists/*.parquet").select("user_id", "items", "scores")
    expected = fitted.recommend_batch(shop.interactions, 10).select("user_id", items="item_id", scores="score")
    assert_frame_equal(
        found.explode("items", "scores").sort("user_id", maintain_order=True),
        expected.sort("user_id", maintain_order=True),
    )


def test_a_fit_reads_a_folder_of_a_bucket(bucket, shop):
    for address in (f"{bucket}/log/", f"{bucket}/csv/log.csv.gz"):
        found = read_frame(address, "interactions", names=("user_id", "item_id", "timestamp"))
        order = ["user_id", "timestamp", "item_id"]
        expected = shop.interactions.select(order).cast({"timestamp": found["timestamp"].dtype}).sort(order)
        assert_frame_equal(found.select(order).sort(order), expected)


def test_what_is_not_in_the_bucket_is_named(bucket):
    with pytest.raises(InvalidDataError, match="s3://shop/nothing"):
        read_frame(f"{bucket}/nothing/*.parquet", "interactions")
