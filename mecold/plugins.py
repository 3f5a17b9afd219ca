"""Adapters to other libraries: what one says of itself, and which are installed (entry points `mecold.adapters`)."""

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, entry_points, version

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

GROUP = "mecold.adapters"


@dataclass(frozen=True)
class Adapter:
    """What an adapter says of itself; loading it imports nothing of its host.

    Args:
        name: the adapter's name, by default the host's.
        host: the distribution that must be installed; "" where none is needed.
        module: the host's top-level module; "" where none is needed.
        tested: versions of the host that it was tested with, in words.
        supported: versions of the host that it should run with, as pip writes them, such as ">=2,<3"; "" for any.
        offers: what the adapter offers, name -> one line.
    """

    name: str
    host: str
    module: str
    tested: str
    supported: str
    offers: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str | None:
        """The installed version of the host; None where it is missing, "" where none is needed."""
        if not self.host:
            return ""
        try:
            there = importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # of a submodule, the parent
            there = False
        if not there:
            return None
        try:
            return version(self.host)
        except PackageNotFoundError:  # the module comes from a fork
            return "of another distribution"

    @property
    def fits(self) -> bool | None:
        """True if the installed version is a supported one; None where there is none, or its number is not known."""
        try:
            return Version(self.version or "") in SpecifierSet(self.supported, prereleases=True)
        except InvalidVersion:
            return None

    @property
    def install(self) -> str:
        """How to install the host; "" where none is needed."""
        return f"pip install '{self.host}{self.supported}'" if self.host else ""

    def missing(self) -> ImportError:
        """The error to raise where what is needed of the host cannot be imported."""
        there = self.version
        what = "is not installed" if there is None else f"{there} lacks what the adapter needs"
        return ImportError(f"{self.host} {what}: {self.install} (tested with {self.tested})")

    def warn_unless_supported(self) -> None:
        """Say so where the installed version is not a supported one; it may work all the same."""
        if self.fits is False:
            warnings.warn(
                f"{self.host} {self.version} is not a version that the adapter supports ({self.supported}); tested with "
                f"{self.tested}.",
                stacklevel=3,
            )


@dataclass(frozen=True)
class Broken:
    """An entry point that does not load.

    Args:
        name: its name.
        reason: the error, in one line.
    """

    name: str
    reason: str


def adapters() -> list[Adapter | Broken]:
    """Every registered adapter, by name; one that does not load says why instead of hiding the others."""
    found: list[Adapter | Broken] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            loaded = point.load()
            if not isinstance(loaded, Adapter):
                raise TypeError(f"{point.value} is a {type(loaded).__name__}, not a mecold.plugins.Adapter")
            _ = loaded.version, loaded.fits  # raise here, where it is caught, what they would raise later
            found.append(loaded)
        except Exception as error:  # somebody else's code
            found.append(Broken(point.name, f"{type(error).__name__}: {error}"))
    return found
