"""What the commands share: consoles, options, and how errors and warnings reach a person."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from mecold.data.catalog import USUAL_FIELDS
from mecold.data.interactions import COLUMNS
from mecold.errors import InvalidDataError, MecoldError
from mecold.evaluation.report.records import Findings

out, err = Console(), Console(stderr=True)

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
Renames: TypeAlias = Annotated[
    list[str], typer.Option("--column", help="Map a column, e.g. --column user_id=customer. Repeatable.")
]


@contextmanager
def explained() -> Iterator[None]:
    """Turn mecold's errors into one line on stderr and exit code 1, and its warnings into notes on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (MecoldError, ImportError, OSError) as error:
            err.print(f"[red]error:[/red] {escaped(str(error))}")
            raise typer.Exit(1) from error
        finally:
            for text in dict.fromkeys(str(one.message) for one in caught if "mecold" in one.category.__module__):
                err.print(f"[yellow]note:[/yellow] {escaped(text)}")


def escaped(text: str) -> str:
    """Text without rich's markup."""
    return text.replace("[", r"\[")


def mapping(renames: list[str], *frames: pl.DataFrame, texts: Sequence[str] = ()) -> dict[str, str]:
    """Canonical name -> the caller's name, from `--column` options.

    Args:
        renames: the options.
        frames: what was read; empty before anything is.
        texts: names of text columns beside the usual ones.

    Raises:
        InvalidDataError: if an option is no NAME=YOURS, NAME is none that is read, or none of the frames has YOURS.
    """
    pairs = [rename.partition("=") for rename in renames]
    wrong = [name + sep for name, sep, theirs in pairs if not (name and theirs)]
    if wrong:
        raise InvalidDataError(f"--column takes NAME=YOURS, such as user_id=customer; not {wrong}.")
    known = dict.fromkeys([*COLUMNS, *USUAL_FIELDS, *texts])
    odd = [name for name, _, _ in pairs if name not in known]
    if odd:
        raise InvalidDataError(f"--column takes NAME=YOURS with NAME one of {', '.join(known)}; not {', '.join(odd)}.")
    there = {name for frame in frames for name in frame.columns}
    nowhere = [f"{ours}={theirs}" for ours, _, theirs in pairs if frames and theirs not in there]
    if nowhere:
        raise InvalidDataError(f"--column {nowhere}: neither file has such a column.")
    return {ours: theirs for ours, _, theirs in pairs}


def mapping_for(frame: pl.DataFrame, renames: dict[str, str], *, log: bool = False) -> dict[str, str]:
    """The part of a mapping that is for a frame of items, or for a log: whose columns it has, and whose names it reads."""
    return {
        ours: theirs
        for ours, theirs in renames.items()
        if theirs in frame.columns and (ours == "item_id" or (ours in COLUMNS) == log)
    }


def scores_table(found: Findings, *, with_costs: bool = True) -> Table:
    """An evaluation as one compact table: the headline metric, and what it costs; the reference is bold."""
    title = f"{found.dataset.name}, {found.protocol} split: {found.headline}, mean over {len(found.seeds)} seeds"
    heads = ["system", *(f"k={k}" for k in found.shots), *(["fit s", "ms/user"] if with_costs else [])]
    table = Table(*heads, title=escaped(title), title_justify="left")
    for name in found.ranked():
        means = [f"{found.score(name, k).mean:.4f}" for k in found.shots]
        costs = found.systems[name].costs
        fit = "" if costs.fit_seconds is None else f"{costs.fit_seconds:.1f}"
        adapt, recommend = costs.adapt_p50_ms, costs.recommend_p50_ms
        each = "" if adapt is None or recommend is None else f"{adapt + recommend:.2f}"
        spent = [fit, each] if with_costs else []
        table.add_row(escaped(name), *means, *spent, style="bold" if name == found.reference else None)
    return table
