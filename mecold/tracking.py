"""Trackers for TensorBoard and Weights & Biases; each imports its library when it is made, with an install hint."""

from collections.abc import Mapping
from typing import Any


class TensorBoardTracker:
    """Writes every number of a fit as a scalar.

    Args:
        folder: log folder, as `tensorboard --logdir` reads it.
    """

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard is not installed: pip install 'mecold[tensorboard]'") from error
        self._writer: Any = SummaryWriter(folder)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one epoch."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class WandbTracker:
    """Sends every number of a fit to Weights & Biases.

    Args:
        **settings: handed to `wandb.init` (project, name, mode, ...).
    """

    def __init__(self, **settings: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("Weights & Biases is not installed: pip install 'mecold[wandb]'") from error
        self._run = wandb.init(**settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of one epoch."""
        self._run.log(dict(values), step=step)
