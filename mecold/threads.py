"""How many threads there are to use, told to torch, FAISS, BLAS and polars before they are loaded.

Left alone, each of them takes every processor of the machine, whatever share of it the container may use, and their threads
spin while they wait: two jobs side by side then slow each other down many times over. Importing this module settles it, for
this process and those that it starts. What is set already, by the variables that these libraries read, stays.
"""

import math
import os
import sys
from pathlib import Path

VARIABLE = "MECOLD_THREADS"
"""Environment variable with a number of threads, for all of them; else it is as many as the process may use."""

_NUMBERS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


def quota(root: Path = Path("/")) -> float | None:
    """Processors that the control group of this process may use, and those around it; None where there is no bound.

    Args:
        root: where `proc` and `sys` are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers
        inside = base / path.lstrip("/")
        for folder in [inside, *inside.parents]:
            if folder == base.parent:
                break
            found.append(_bound(folder, unified=not controllers))
    bounds = [one for one in found if one is not None]
    return min(bounds) if bounds else None


def _bound(folder: Path, *, unified: bool) -> float | None:
    try:
        if unified:
            most, period = (folder / "cpu.max").read_text().split()
        else:
            most, period = ((folder / f"cpu.cfs_{one}_us").read_text().strip() for one in ("quota", "period"))
        return None if most in ("max", "-1") else float(most) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def usable(root: Path = Path("/")) -> int:
    """How many threads can work at once: processors that this process may run on, or its quota, rounded up."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bound = quota(root)
    return mine if bound is None else max(1, min(mine, math.ceil(bound)))


def settle() -> int:
    """Tell all libraries how many threads there are, and to sleep while they wait; returns the number."""
    wanted = os.environ.get(VARIABLE, "")
    count = int(wanted) if wanted.isdecimal() and int(wanted) > 0 else usable()
    if wanted or count < usable(Path("/nothing")):  # else the libraries find the same by themselves
        for name in _NUMBERS:
            os.environ.setdefault(name, str(count))
        if "torch" in sys.modules and os.environ[_NUMBERS[0]] == str(count):  # it has read its variables already
            sys.modules["torch"].set_num_threads(count)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return count


THREADS = settle()
