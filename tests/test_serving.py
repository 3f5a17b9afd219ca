"""The service of the example: a real server and real clients, while items come in and another model takes over."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mecold import Recommender
from tests.conftest import SMALL
from tests.fuzz.pool import SHOP

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

EXAMPLE = Path(__file__).parents[1] / "examples" / "serving"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Address of a server, and the folder of another model."""
    place = tmp_path_factory.mktemp("service")
    recommender = Recommender(config=SMALL, rng=0)
    recommender.fit_meta(SHOP.interactions, SHOP.items)
    recommender.save(place / "first")
    recommender.hide_items([one.item for one in recommender.recommend(recommender.adapt_user(["p1", "p2"]), 5)])
    recommender.save(place / "second")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "warning"], cwd=EXAMPLE,
        env={**os.environ, "MODEL": str(place / "first"), "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(address)
                break
            except httpx.TransportError:
                assert server.poll() is None, "the server did not start"
                time.sleep(0.1)
        yield address, place / "second"
    finally:
        server.terminate()
        server.wait()


def test_a_service_answers_while_items_come_in_and_another_model_takes_over(service):
    address, second = service
    answers, codes, done = [], set(), threading.Event()

    def ask():
        with httpx.Client(base_url=address, timeout=60) as client:
            while not done.is_set():
                found = client.post("/recommend", json={"history": ["p1", "p2"], "k": 5})
                codes.add(found.status_code)
                answers.append(tuple(one["item"] for one in found.json()))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    with httpx.Client(base_url=address, timeout=60) as client:
        try:
            for number in range(3):
                item = [{"item_id": f"new{number}", "title": "Arbor Slim Gel Pen, Navy", "category": "Writing"}]
                found = client.post("/items", json=item)
                assert (found.status_code, found.json()) == (200, 201 + number)
            before = len(answers)
            assert client.post("/model", params={"folder": str(second)}).status_code == 200
            while len(answers) < before + 20:
                time.sleep(0.01)
        finally:
            done.set()
            for asker in askers:
                asker.join()
        assert codes == {200}
        assert len(set(answers)) >= 2, "the second model's list is another one"
        assert all(len(one) == 5 and not {"p1", "p2"} & set(one) for one in answers)
        refused = client.post("/recommend", json={"history": ["p1"], "k": 0})
        assert refused.status_code == 400
        assert "positive integer" in refused.json()["error"]
        assert client.post("/model", params={"folder": "nowhere"}).status_code == 400
