"""Speed of the example's service: requests a second and times of answers, alone and while items and models come in.

python bench/service.py MODEL_FOLDER [SECONDS]
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from mecold import Recommender

EXAMPLE = Path(__file__).parents[1] / "examples" / "serving"


def load(address: str, clients: int, seconds: float, besides: Callable[[httpx.Client], None] | None) -> str:
    """Ask for so long with so many clients; what else happens is done over and over by one more."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    def ask() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while time.perf_counter() < end:
                start = time.perf_counter()
                client.post("/recommend", json={"history": ["p1", "p2", "p5"], "k": 10}).raise_for_status()
                took.append(1000 * (time.perf_counter() - start))

    def more() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while besides is not None and time.perf_counter() < end:
                besides(client)

    threads = [threading.Thread(target=ask) for _ in range(clients)] + [threading.Thread(target=more)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    return f"{len(took) / seconds:7.0f} requests/s, p50 {p50:5.1f} ms, p95 {p95:5.1f} ms, p99 {p99:5.1f} ms"


def main() -> None:
    folder, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    print(f"{len(Recommender.load(folder).item_ids()):,} items, 4 clients, {seconds:g} s each")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "error"],
        cwd=EXAMPLE, env={**os.environ, "MODEL": folder},
    )  # fmt: skip
    number = iter(range(1 << 30))

    def add(client: httpx.Client) -> None:
        item = [{"item_id": f"new{next(number)}", "title": "Arbor Slim Gel Pen, Navy", "category": "Writing"}]
        client.post("/items", json=item).raise_for_status()
        time.sleep(0.1)

    def swap(client: httpx.Client) -> None:
        client.post("/model", params={"folder": folder}).raise_for_status()
        time.sleep(0.5)

    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(address)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        for name, besides in (("alone", None), ("while items are added", add), ("while models are swapped in", swap)):
            print(f"{name:28}", load(address, 4, seconds, besides), flush=True)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
