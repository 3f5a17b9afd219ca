"""What a killed training needs to go on as if nothing had happened. Written beside, then moved: whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mecold.errors import EncoderError

NAME = "checkpoint.safetensors"


@dataclass
class Progress:
    """How far a training is.

    Args:
        step: steps done.
        best: the best score so far.
        best_step: when it was reached; 0 is the base.
        events: the curve, as in a report.
        tokens: most tokens of a step; less than the setting where memory ran out.
    """

    step: int
    best: float
    best_step: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0


def save(place: Path, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Replace the checkpoint."""
    fresh = place / (NAME + ".new")
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(whole, fresh, {"progress": json.dumps(vars(progress))})
    fresh.replace(place / NAME)


def load(place: Path) -> tuple[Progress, dict[str, Tensor]] | None:
    """The checkpoint; None where there is none.

    Raises:
        EncoderError: if it cannot be read.
    """
    path = place / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return Progress(**json.loads(file.metadata()["progress"])), {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError) as error:
        raise EncoderError(f"The checkpoint '{path}' is damaged: {error}. Delete '{place}' to begin anew.") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of AdamW by parameter."""
    state: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
    return {f"{at}.{name}": value for at, own in state.items() for name, value in own.items()}


def put_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take the state back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        at, _, name = key.partition(".")
        state.setdefault(int(at), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
