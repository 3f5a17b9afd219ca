"""A job on a Ray cluster: units go to actors that load the model once and live on any machine that sees the same folders.

`pip install 'mecold[ray]'`. Ray Data hands units out and gives those of a lost machine to another; a unit that was done twice
is the same file. The model, the files and the folder of the job must have the same path or address everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mecold.devices import device_of
from mecold.errors import MecoldError
from mecold.jobs.job import Plan
from mecold.jobs.work import Done, Worker


class _Actor:
    """One worker; its process has one thread of torch's, as every processor has an actor."""

    def __init__(self, plan: Plan, method: str) -> None:
        self._worker, self._method = Worker(plan, threads=1), method

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the units of a batch; an error of mecold's is handed back, since doing it again would not help."""
        answers: list[Any] = []
        for unit in batch["id"].tolist():
            try:
                found = getattr(self._worker, self._method)(int(unit))
                answers.append({"done": None if found is None else vars(found)})
            except MecoldError as error:
                answers.append({"error": error})
        return {"answer": answers}


def actors(plan: Plan, method: str, units: Sequence[int]) -> Iterator[Any]:
    """See `run.Engine`."""
    ray = _ray()
    if not len(units):
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    gpus = 1 if device_of(plan.job.device).type == "cuda" else 0
    most = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1))
    pool = ray.data.ActorPoolStrategy(size=max(1, min(most, len(units))))
    # units are handed over as they are: reading them from somewhere would take a processor that the actors have
    done = ray.data.from_items([{"id": unit} for unit in units], override_num_blocks=len(units)).map_batches(
        _Actor, fn_constructor_args=(plan, method), batch_size=1, num_gpus=gpus or None, num_cpus=None if gpus else 1,
        compute=pool, max_restarts=-1, max_task_retries=-1,
    )  # fmt: skip
    for row in done.iter_rows():
        answer = row["answer"]
        if "error" in answer:
            raise answer["error"]
        yield None if answer["done"] is None else Done(**answer["done"])


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("Ray is not installed: pip install 'mecold[ray]'") from error
    return ray
