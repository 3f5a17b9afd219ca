"""What the commands share: consoles, options, and how errors and warnings reach a person."""

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import click
import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mecold.data.catalog import TextTemplate
from mecold.data.frames import INTERACTION_NAMES, as_said, column_names, read_frame
from mecold.errors import InvalidDataError, MecoldError, few, told
from mecold.evaluation.report.records import Findings

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_REPORT = "please report it, with the command and the files' first lines. Its traceback: MECOLD_TRACEBACK=1"

out, err = Console(), Console(stderr=True)

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
Renames: TypeAlias = Annotated[
    list[str], typer.Option("--column", help="Map a column, e.g. --column user_id=customer. Repeatable.")
]
Types: TypeAlias = Annotated[
    list[str],
    typer.Option("--type", help="Type of a column of ids, e.g. --type item_id=text (or integer). Repeatable."),
]


@contextmanager
def explained() -> Iterator[None]:
    """Turn mecold's errors into one line on stderr and exit code 1, and its warnings into notes on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (typer.Exit, typer.Abort, click.ClickException):
            raise
        except Exception as error:
            if os.environ.get("MECOLD_TRACEBACK"):
                raise
            known = isinstance(error, MecoldError | ImportError | OSError)
            what = str(error) if known else f"{told(error)}. This is a mistake in mecold: {_REPORT}"
            err.print(f"[red]error:[/red] {escaped(what)}", soft_wrap=True)
            raise typer.Exit(1) from error
        finally:
            for text in dict.fromkeys(str(one.message) for one in caught if "mecold" in one.category.__module__):
                err.print(f"[yellow]note:[/yellow] {escaped(text)}")


def escaped(text: str) -> str:
    """Text of which nothing is rich's markup, and nothing tells a terminal what to do."""
    return escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text))


def renames_of(
    column: list[str], names: Mapping[str, Sequence[str]], files: Mapping[str, Path] | None = None
) -> dict[str, dict[str, str]]:
    """Canonical name -> the caller's name for each of some files, from `--column` options: of columns that it has.

    Args:
        column: the options.
        names: canonical names, by kind of file.
        files: paths, by kind of file; None before any is looked at.

    Raises:
        InvalidDataError: if an option is no NAME=YOURS, its name is canonical for no file, or no file has such a column.
    """
    known = tuple(dict.fromkeys(name for some in names.values() for name in some))
    renames = _pairs("--column", "NAME=YOURS, such as user_id=customer", column, known)
    there = {what: column_names(path, what) for what, path in (files or {}).items()}
    found = {
        what: {ours: theirs for ours, theirs in renames.items() if theirs in columns and ours in names[what]}
        for what, columns in there.items()
    }
    nowhere = [f"{ours}={theirs}" for ours, theirs in renames.items() if not any(ours in one for one in found.values())]
    if files is not None and nowhere:
        raise InvalidDataError(f"--column {nowhere}: no file has such a column.")
    return found


def types_of(types: list[str]) -> dict[str, Any]:
    """Column of ids -> its type, from `--type` options.

    Raises:
        InvalidDataError: if an option is no NAME=text or NAME=integer, or its name is no column of ids.
    """
    form = "NAME=text or NAME=integer, such as item_id=text"
    pairs = _pairs("--type", form, types, ("user_id", "item_id"))
    kinds = {"text": pl.String, "integer": pl.Int64}
    if wrong := [f"{name}={kind}" for name, kind in pairs.items() if kind not in kinds]:
        raise InvalidDataError(f"--type takes {form}; not {wrong}.")
    return {name: kinds[kind] for name, kind in pairs.items()}


def _pairs(option: str, form: str, given: list[str], names: Sequence[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    if wrong := [name + sep for name, sep, value in pairs if not (name and value)]:
        raise InvalidDataError(f"{option} takes {form}; not {wrong}.")
    if unknown := [name for name, _, _ in pairs if name not in names]:
        raise InvalidDataError(f"{option} {few(unknown)}: there is no such name. It takes {few(names, 30)}.")
    return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Files:
    """A log and its items, with what the command line says of them.

    Args:
        log: path of the interactions.
        items: path of the items.
        columns: the `--column` options.
        types: the `--type` options.
        template: which columns make the text; their names may be mapped to as well.
    """

    log: Path
    items: Path
    columns: list[str]
    types: list[str]
    template: TextTemplate

    @property
    def names(self) -> dict[str, Sequence[str]]:
        """Canonical names, by kind of file."""
        return {"interactions": INTERACTION_NAMES, "items": self.template.names}

    def check(self) -> None:
        """Refuse a misspelt option before any file is read."""
        renames_of(self.columns, self.names)
        types_of(self.types)

    def read(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Both frames under canonical names; item ids of a csv log are what those of the items are.

        Raises:
            InvalidDataError: if a mapped column is in neither file, or a type does not fit.
        """
        types = types_of(self.types)
        renames = renames_of(self.columns, self.names, {"interactions": self.log, "items": self.items})
        items = read_frame(self.items, "items", renames["items"], names=self.template.names, ids=types)
        items = as_said(items, types, "items")
        kinds = {"item_id": items["item_id"].dtype, **types} if "item_id" in items.columns else types
        log = read_frame(self.log, "interactions", renames["interactions"], names=INTERACTION_NAMES, ids=kinds)
        return as_said(log, types, "interactions"), items


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


def show_values(values: dict[str, Any], as_json: bool, title: str) -> None:
    """A record as a small table, or as JSON."""
    if as_json:
        typer.echo(json.dumps(values))
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in values.items():
        parts = [str(value)]
        if isinstance(value, dict):
            parts = [f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in value.items()]
        elif isinstance(value, list):
            parts = [str(one) for one in value]
        text = ("\n" if max(map(len, parts), default=0) > 40 else ", ").join(parts)  # sentences have lines of their own
        table.add_row(name, escaped(text))
    out.print(table)
