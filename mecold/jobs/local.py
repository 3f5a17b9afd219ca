"""All processors of this machine: as many threads as there are, each with a unit of its own, so that reading, adapting,
searching and writing of different units overlap. Within a unit torch has one thread; a graphics card takes one unit at a time.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import torch

from mecold.devices import device_of
from mecold.jobs.job import Plan
from mecold.jobs.work import Worker


def threads(plan: Plan, method: str, units: Sequence[int]) -> Iterator[Any]:
    """See `run.Engine`."""
    before = torch.get_num_threads()
    alone = device_of(plan.job.device).type != "cpu"
    count = 2 if alone else before
    worker = Worker(plan, threads=before if alone else 1)
    pool = ThreadPoolExecutor(count)
    try:
        _ = worker.known  # loads the model once, before there are several threads
        if method == "recommend":
            _ = (worker.wanted, worker.scattered)
        futures = [pool.submit(getattr(worker, method), unit) for unit in units]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)
