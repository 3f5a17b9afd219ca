"""What the benchmarks share: interleaved repeats and medians, a random item space, what machine it was and what code."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mecold.heads.preference import PreferenceHead
from mecold.space.channel import Channel
from mecold.space.channels import MAKERS
from mecold.space.lists import Lists
from mecold.space.settings import FactorConfig
from mecold.space.space import ItemSpace


def medians_ms(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call; the calls take turns, so that noise hits all of them; one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def random_space(items: int) -> ItemSpace:
    """A space of random vectors, 192 wide, and neighbour lists of the default width, for what only shapes cost."""
    rng = torch.Generator().manual_seed(0)

    def side(width: int) -> torch.Tensor:
        return torch.randn(items, width, generator=rng) / 192**0.5

    text = side(62)
    sides = {
        "symmetric": (side(64), side(64)), "directed": (side(64), side(64)), "text": (text, text),
        "new": (None, torch.zeros(items, 1)), "popularity": (None, side(1)),
    }  # fmt: skip
    width = FactorConfig.neighbours
    lists = Lists(
        torch.randint(items, (items, width), generator=rng, dtype=torch.int32), torch.rand(items, width, generator=rng)
    )
    channels = {name: Channel.of(name, MAKERS[name].traits, *both) for name, both in sides.items()}
    return ItemSpace(channels, lists, torch.ones(items), torch.zeros(items, dtype=torch.bool))


def head_of(space: ItemSpace) -> PreferenceHead:
    """A head before training."""
    return PreferenceHead.start({name: channel.traits for name, channel in space.channels.items()})


def machine() -> str:
    """Processor, torch and threads, for the head of a result."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def commit_of() -> str:
    """The commit, marked where code (not results) differs from it."""

    def git(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *command], capture_output=True, text=True, cwd=Path(__file__).parents[1])

    changed = git("diff", "--quiet", "HEAD", "--", "mecold", "bench/*.py").returncode
    return git("describe", "--always").stdout.strip() + ("-dirty" if changed else "")
