"""What every baseline shares."""

from dataclasses import dataclass
from typing import ClassVar

from mecold.evaluation.systems.base import Kind


@dataclass(frozen=True)
class Baseline:
    """Name, fingerprint and kind of a baseline, all read off its settings.

    Args:
        fade: an item `a` steps older than the last weighs exp(-a / fade); None: all weigh the same.
    """

    label: ClassVar[str]
    fade: float | None = None

    @property
    def family(self) -> str:
        """The name without settings."""
        return ("faded_" if self.fade else "") + self.label

    @property
    def kind(self) -> Kind:
        """Order-aware when older items count less."""
        return "order-aware" if self.fade else "order-blind"

    @property
    def name(self) -> str:
        """`family[setting=value,...]`."""
        settings = {k: v for k, v in vars(self).items() if k != "fade"}
        inside = ",".join(f"{k}={v:g}" for k, v in settings.items())
        return f"{self.family}[{inside}]" if inside else self.family

    @property
    def fingerprint(self) -> str:
        """Every setting, to the last digit."""
        return f"{self.family} {vars(self)}"


@dataclass(frozen=True)
class TextBaseline(Baseline):
    """A baseline that reads text vectors."""

    needs_text = True
