"""Where torch works."""

import os

import torch

from mecold.errors import InvalidDataError, foreign

VARIABLE = "MECOLD_DEVICE"
"""Environment variable that says what `"auto"` stands for."""


def device_of(name: object) -> torch.device:
    """The device of a setting.

    Args:
        name: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, ...; `"auto"` is what `$MECOLD_DEVICE` says, else CUDA where there is
            one, else the CPU.

    Raises:
        InvalidDataError: if torch knows no such device, or finds none here.
    """
    if not isinstance(name, str):
        raise InvalidDataError(f"device={name!r:.60} must be a text such as 'auto', 'cpu' or 'cuda'.")
    wanted = os.environ.get(VARIABLE, "auto") if name == "auto" else name
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise InvalidDataError(f"There is no device {wanted!r}; write 'auto', 'cpu', 'cuda' or 'cuda:1'.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidDataError(
            f"Device {wanted!r} was asked for; torch finds {torch.cuda.device_count()} CUDA devices here. Use 'cpu', or a "
            "torch build with CUDA."
        )
    if device.type != "cpu":
        with foreign(InvalidDataError, f"Device {wanted!r} cannot compute here", "Use 'auto' or 'cpu'."):
            torch.ones(1, device=device).cpu()
    return device
