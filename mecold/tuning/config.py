"""Settings of a training of the encoder."""

from dataclasses import dataclass

from mecold.errors import InvalidDataError


@dataclass(frozen=True)
class EncoderTraining:
    """How an encoder is trained.

    Args:
        steps: most steps of the optimiser; training stops earlier where held-out items no longer gain.
        trained_layers: how many of the topmost layers learn; all of a model that has fewer. The states below them are computed
            once and lie on disk.
        learning_rate: of AdamW, after a warm-up of ten steps; it falls to 0 over the steps.
        temperature: divides cosines in the contrastive losses.
        batch: most items of a step; at least 8.
        batch_tokens: most tokens of a step, so that long texts make small batches.
        max_length: tokens of a text that are read in training. The written encoder reads as many as its base does.
        mixing: a task is drawn in proportion to its size to this power: 1 is by size, 0 all alike.
        check_every: steps between two looks at held-out items, and between two checkpoints.
        patience: looks without a gain after which training stops.
        held_out: share of the items, and of the users, that training never sees and that decide what is kept.
        blends: shares of the way from the base's weights to the trained ones that are tried at the end.
        least_gain: what a trained encoder must gain on held-out items, relative to the base; else the base is kept.

    Raises:
        InvalidDataError: naming the setting that cannot be used.
    """

    steps: int = 150
    trained_layers: int = 6
    learning_rate: float = 2e-4
    temperature: float = 0.05
    batch: int = 512
    batch_tokens: int = 8192
    max_length: int = 96
    mixing: float = 0.5
    check_every: int = 10
    patience: int = 5
    held_out: float = 0.15
    blends: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    least_gain: float = 0.02

    def __post_init__(self) -> None:
        least = {"steps": 1, "trained_layers": 1, "batch": 8, "batch_tokens": 64, "max_length": 8}
        least |= {"check_every": 1, "patience": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InvalidDataError(f"EncoderTraining.{name}={getattr(self, name)} must be at least {bound}.")
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise InvalidDataError(f"EncoderTraining.{name}={getattr(self, name)} must be above 0.")
        if not 0 < self.held_out < 1:
            raise InvalidDataError(f"EncoderTraining.held_out={self.held_out} must lie between 0 and 1.")
        if self.least_gain < 0:
            raise InvalidDataError(f"EncoderTraining.least_gain={self.least_gain} must not be below 0.")
        if not self.blends or not all(0 < one <= 1 for one in self.blends):
            raise InvalidDataError(f"EncoderTraining.blends={self.blends} must be shares above 0, up to 1.")
