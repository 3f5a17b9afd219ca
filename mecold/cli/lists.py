"""Commands that print or write lists: recommend and similar."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import typer
from rich.table import Table

from mecold.cli.options import options
from mecold.cli.terminal import AsJson, Renames, Types, err, escaped, renames_of, types_of
from mecold.cli.terminal import out as console
from mecold.data.frames import INTERACTION_NAMES, as_said, id_column, read_frame, require
from mecold.errors import InvalidDataError
from mecold.recommender import Recommender
from mecold.types import ItemId, Recommendation

ModelFolder = Annotated[Path, typer.Argument(help="Folder that `mecold fit --out` wrote.")]
HowMany = Annotated[int, typer.Option("-k", min=1, help="How many items.")]


@dataclass(frozen=True)
class _Filters:
    """Who may get what."""

    exclude: Annotated[
        Path | None, typer.Option(help="Items to leave out: item_id; with user_id too, per user of --history.")
    ] = None
    among: Annotated[
        Path | None,
        typer.Option(help="The only items allowed: item_id; with user_id too, per user; others get nothing."),
    ] = None
    column: Renames = ()  # type: ignore[assignment]
    type_: Types = ()  # type: ignore[assignment]

    def read(self, recommender: Recommender, more: dict[str, Path | None]) -> "dict[str, pl.DataFrame | None]":
        """The files under canonical names, by option; item ids of a csv are what the catalogue's are."""
        paths = {**more, "--exclude": self.exclude, "--among": self.among}
        files, types = {what: path for what, path in paths.items() if path is not None}, types_of(list(self.type_))
        names = {what: INTERACTION_NAMES if what == "interactions" else ("user_id", "item_id") for what in files}
        renames = renames_of(list(self.column), names or {"interactions": INTERACTION_NAMES}, files)
        kinds = {"item_id": pl.String if recommender.info()["item_ids"] == "strings" else pl.Int64, **types}
        found: dict[str, pl.DataFrame | None] = dict.fromkeys(paths)
        for what, path in files.items():
            frame = as_said(read_frame(path, what, renames[what], names=names[what], ids=kinds), types, what)
            require(frame, ["item_id"], what)
            found[what] = frame
            if what == "interactions" and "user_id" in frame.columns and frame.height:
                kinds = {"user_id": frame["user_id"].dtype, **kinds}
        return found


@dataclass(frozen=True)
class _Shape:
    """What lists are like."""

    include_seen: Annotated[bool, typer.Option(help="Let items of the history come back.")] = False
    diversity: Annotated[float, typer.Option(help="0 (off) to 1: how unlike the items of a list are.")] = 0.0
    groups: Annotated[Path | None, typer.Option(help="Which item belongs to which group: item_id and one column.")] = (
        None
    )
    per_group: Annotated[
        int | None, typer.Option(min=1, help="With --groups: at most so many of one; 1 if left out.")
    ] = None

    def settings(self, groups: pl.DataFrame | None) -> dict[str, Any]:
        """Arguments of `recommend` and `recommend_batch`."""
        return {
            "include_seen": self.include_seen, "diversity": self.diversity, "groups": groups,
            "per_group": self.per_group,
        }  # fmt: skip


@options(_Filters, _Shape)
def recommend(
    model: ModelFolder,
    filters: _Filters,
    shape: _Shape,
    items: Annotated[
        list[str], typer.Option("--items", help="Ids of the user's items, oldest first; repeatable.")
    ] = [],  # noqa: B006
    more: Annotated[list[str] | None, typer.Argument(help="Further ids, so that `--items ID ID ...` works.")] = None,
    history: Annotated[
        Path | None, typer.Option(help="Parquet, arrow, csv or jsonl of histories: a batch of users.")
    ] = None,
    attribute: Annotated[
        list[str], typer.Option(help="What else is known of the one user: NAME=VALUE; repeatable.")
    ] = [],  # noqa: B006
    attributes: Annotated[
        Path | None, typer.Option(help="With --history: what else is known of users: user_id and more columns.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --history: write the lists to this parquet or csv file.")
    ] = None,
    k: HowMany = 10,
    on_unknown: Annotated[Literal["raise", "drop"], typer.Option(help="What to do with unknown items.")] = "raise",
    json_: AsJson = False,
) -> None:
    """Recommend for one user (by items) or for a file of users (by history).

    Files are parquet, arrow, csv or jsonl, folders and globs too; --column maps the columns of all of them.

    Examples:
    mecold recommend model/ --items A1 B7 -k 5

    mecold recommend model/ --history log.parquet --out lists.parquet

    mecold recommend model/ --history log.parquet --exclude bought.csv --groups brands.csv --per-group 2
    """
    if history is None and (out is not None or attributes is not None):
        raise InvalidDataError(
            "Pass --out and --attributes with --history; one user's list is printed, and takes --attribute."
        )
    if history is not None and (items or more or attribute):
        raise InvalidDataError("Pass --items and --attribute for one user or --history for many, not both.")
    recommender = Recommender.load(model)
    tables = filters.read(recommender, {"interactions": history, "--groups": shape.groups})
    log, leaving, allowed = (tables[what] for what in ("interactions", "--exclude", "--among"))
    settings = shape.settings(tables["--groups"])
    if log is None:
        known = _values(attribute, recommender)
        user = recommender.adapt_user(
            ids_of([*items, *(more or [])], recommender), attributes=known, on_unknown=on_unknown
        )  # fmt: skip
        out_of, only = _for_one(leaving, "--exclude"), _for_one(allowed, "--among")
        show_list(recommender, recommender.recommend(user, k, exclude=out_of or (), among=only, **settings), json_)
        return
    lists = recommender.recommend_batch(
        log, k, on_unknown=on_unknown, attributes=attributes, exclude=() if leaving is None else leaving, among=allowed,
        **settings,
    )  # fmt: skip
    _write_or_print(lists, out, json_)


@options(_Filters)
def similar(
    model: ModelFolder,
    filters: _Filters,
    items: Annotated[list[str] | None, typer.Argument(help="Item ids: one, or many such as a basket.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Describes a thing that is not in the catalogue; needs the encoder of the fit.")
    ] = None,
    k: HowMany = 10,
    json_: AsJson = False,
) -> None:
    """Items that go with an item, with all of several, or with a text.

    Examples:
    mecold similar model/ A1 B7 --among in_stock.csv

    mecold similar model/ --text "leather travel mug"
    """
    recommender = Recommender.load(model)
    tables = filters.read(recommender, {})
    out_of, only = _for_one(tables["--exclude"], "--exclude"), _for_one(tables["--among"], "--among")
    wanted = ids_of(items or [], recommender)
    show_list(recommender, recommender.similar_items(wanted, k, text=text, exclude=out_of or (), among=only), json_)


def _values(pairs: list[str], recommender: Recommender) -> dict[str, Any] | None:
    """Attributes of one user out of NAME=VALUE; numbers where the model has numbers."""
    found: dict[str, Any] = {}
    kinds = recommender.info()["attributes"]
    for name, sep, value in (pair.partition("=") for pair in pairs):
        if not (name and sep):
            raise InvalidDataError(f"--attribute takes NAME=VALUE, such as age=31; not {name!r}.")
        try:
            found[name] = float(value) if kinds.get(name) == "number" else value
        except ValueError as error:
            raise InvalidDataError(f"--attribute {name}={value}: {name} is a number.") from error
    return found or None


def ids_of(texts: list[str], recommender: Recommender) -> list[ItemId]:
    """Ids as the catalogue has them: a command line has strings only."""
    if recommender.info()["item_ids"] == "strings":
        return list(texts)
    wrong = [text for text in texts if not text.lstrip("-").isdecimal()]
    if wrong:
        raise InvalidDataError(f"The catalogue's ids are integers; these are not: {wrong}.")
    return [int(text) for text in texts]


def _for_one(frame: pl.DataFrame | None, option: str) -> list[ItemId] | None:
    """The ids of a file for one user."""
    if frame is None:
        return None
    if "user_id" in frame.columns:
        raise InvalidDataError(f"{option} has a column user_id, but --items is one user without an id. Use --history.")
    return id_column(frame["item_id"], f"item_id of {option}").to_list()


def show_list(recommender: Recommender, found: list[Recommendation], as_json: bool) -> None:
    """A list as a small table with texts, or as JSON."""
    if as_json:
        typer.echo(json.dumps([one._asdict() for one in found]))
        return
    table = Table("rank", "item", "score", "text")
    for rank, one in enumerate(found, start=1):
        table.add_row(
            str(rank), escaped(str(one.item)), f"{one.score:.3f}", escaped(recommender.text_of(one.item)[:70])
        )
    console.print(table)


def _write_or_print(lists: pl.DataFrame, out: Path | None, as_json: bool) -> None:
    if out is not None:
        if out.suffix not in (".parquet", ".csv"):
            raise InvalidDataError(f"--out must end in .parquet or .csv, not '{out.name}'.")
        part = out.with_name(f".{out.name}.part")  # a killed job leaves no half-written file behind
        (lists.write_csv if out.suffix == ".csv" else lists.write_parquet)(part)
        part.rename(out)
        err.print(f"{lists['user_id'].n_unique():,} users, {lists.height:,} rows written to {out}")
    elif as_json:
        typer.echo(lists.write_json())
    else:
        typer.echo(lists.write_csv(), nl=False)
