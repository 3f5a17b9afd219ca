"""The command line: parses arguments, calls the face, prints. `--json` prints one JSON value for machines.

Exit codes: 0 done, 1 mecold refused the input (the reason is on stderr), 2 the command line itself is wrong.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import typer
from rich.table import Table

from mecold.cli.evaluate import app as evaluate_app
from mecold.cli.terminal import AsJson, Files, Renames, Types, err, escaped, explained, renames_of, types_of
from mecold.cli.terminal import out as console
from mecold.data.catalog import TextTemplate
from mecold.data.frames import INTERACTION_NAMES, as_said, id_column, read_frame, require
from mecold.encode.encoder import TextEncoder
from mecold.encode.model_folder import DEFAULT_MODEL
from mecold.errors import InvalidDataError
from mecold.meta.config import MetaConfig
from mecold.plugins import Adapter, Broken, adapters
from mecold.recommender import Recommender
from mecold.store import check_target
from mecold.types import ItemId, Recommendation
from mecold.version import __version__

app = typer.Typer(
    help="Few-shot recommendations for cold users and cold items.",
    no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
)  # fmt: skip
app.add_typer(evaluate_app, name="evaluate")

ModelFolder = Annotated[Path, typer.Argument(help="Folder that `mecold fit --out` wrote.")]
HowMany = Annotated[int, typer.Option("-k", min=1, help="How many items.")]


@app.command(name="adapters")
def list_adapters(json_: AsJson = False) -> None:
    """List the adapters to other libraries: which are installed, what they were tested with, what is missing.

    Example: mecold adapters
    """
    found = adapters()
    if json_:
        rows = [
            asdict(one) | ({"version": one.version, "fits": one.fits} if isinstance(one, Adapter) else {})
            for one in found
        ]
        print(json.dumps(rows))  # noqa: T201
        return
    table = Table("adapter", "host", "supported", "tested with", "offers")
    for one in found:
        if isinstance(one, Broken):
            table.add_row(escaped(one.name), "[red]does not load[/red]", "", "", escaped(one.reason))
            continue
        host = "none needed" if not one.host else one.version or f"[yellow]missing[/yellow]: {escaped(one.install)}"
        if one.fits is False:
            host += " [yellow](not a supported version)[/yellow]"
        offers = "\n".join(f"{name}: {line}" for name, line in one.offers.items())
        table.add_row(escaped(one.name), host, escaped(one.supported), escaped(one.tested), escaped(offers))
    console.print(table)


@app.command()
def fit(
    interactions: Annotated[
        Path, typer.Option(help="Parquet or csv: user_id, item_id, optional timestamp, rating, ...")
    ],
    items: Annotated[Path, typer.Option(help="Parquet or csv: item_id and text columns.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    encoder: Annotated[str, typer.Option(help="Hub name or local folder of a BERT-like model.")] = DEFAULT_MODEL,
    text: Annotated[list[str], typer.Option(help="Column that makes the text; repeatable, in order.")] = [],  # noqa: B006
    column: Renames = [],  # noqa: B006
    type_: Types = [],  # noqa: B006
    liked_from: Annotated[float | None, typer.Option(help="Ratings below this are dislikes.")] = None,
    index: Annotated[str, typer.Option(help="auto, flat, hnsw, or a FAISS factory string.")] = "auto",
    on_unknown: Annotated[Literal["raise", "drop"], typer.Option(help="Interactions of unknown items.")] = "raise",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json_: AsJson = False,
) -> None:
    """Meta-learn from a log and write the model to a folder.

    Example: mecold fit --interactions log.parquet --items items.parquet --out model/
    """
    with explained():
        template = TextTemplate(fields=tuple(text) or None)
        files = Files(interactions, items, column, type_, template)
        files.check()
        recommender = Recommender(
            TextEncoder(encoder, device=device), config=MetaConfig(liked_from=liked_from), template=template,
            index=index, device=device, rng=seed, progress=not json_,
        )  # fmt: skip
        check_target(out)
        log, shop = files.read()
        report = recommender.fit_meta(log, shop, on_unknown=on_unknown)
        recommender.save(out)
        held_out = {k: dict(report.curve(f"held_out/ndcg@10/{k}")).get(report.best_step) for k in (0, 1, 3, 5, 10)}
        answer = {
            "model": str(out),
            "seconds": round(report.seconds, 1),
            "held_out_ndcg@10": held_out,
            **recommender.info(),
        }
        _show(answer, json_, f"Model written to {out}")


@app.command()
def recommend(
    model: ModelFolder,
    items: Annotated[
        list[str], typer.Option("--items", help="Ids of the user's items, oldest first; repeatable.")
    ] = [],  # noqa: B006
    more: Annotated[list[str] | None, typer.Argument(help="Further ids, so that `--items ID ID ...` works.")] = None,
    history: Annotated[Path | None, typer.Option(help="Parquet or csv of histories: a batch of users.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --history: write the lists to this parquet or csv file.")
    ] = None,
    k: HowMany = 10,
    exclude: Annotated[
        Path | None, typer.Option(help="Items to leave out: item_id; with user_id too, per user of --history.")
    ] = None,
    among: Annotated[
        Path | None,
        typer.Option(help="The only items allowed: item_id; with user_id too, per user; others get nothing."),
    ] = None,
    diversity: Annotated[float, typer.Option(help="0 (off) to 1: how unlike the items of a list are.")] = 0.0,
    groups: Annotated[
        Path | None, typer.Option(help="Which item belongs to which group: item_id and one column.")
    ] = None,
    per_group: Annotated[
        int | None, typer.Option(min=1, help="With --groups: at most so many of one; 1 if left out.")
    ] = None,
    column: Renames = [],  # noqa: B006
    type_: Types = [],  # noqa: B006
    on_unknown: Annotated[Literal["raise", "drop"], typer.Option(help="What to do with unknown items.")] = "raise",
    json_: AsJson = False,
) -> None:
    """Recommend for one user (by items) or for a file of users (by history).

    Files are parquet or csv; --column maps the columns of all of them.

    Examples:
    mecold recommend model/ --items A1 B7 -k 5

    mecold recommend model/ --history log.parquet --out lists.parquet

    mecold recommend model/ --history log.parquet --exclude bought.csv --groups brands.csv --per-group 2
    """
    with explained():
        if history is None and out is not None:
            raise InvalidDataError("--out goes with --history; for one user the list is printed.")
        if history is not None and (items or more):
            raise InvalidDataError("Pass --items for one user or --history for many, not both.")
        recommender = Recommender.load(model)
        tables = {"interactions": history, "--exclude": exclude, "--among": among, "--groups": groups}
        log, leaving, allowed, grouped = _tables(tables, column, type_, recommender)
        if log is None:
            user = recommender.adapt_user(_ids([*items, *(more or [])], recommender), on_unknown=on_unknown)
            out_of, only = _for_one(leaving, "--exclude"), _for_one(allowed, "--among")
            found = recommender.recommend(
                user, k, exclude=out_of or (), among=only, diversity=diversity, groups=grouped, per_group=per_group
            )
            _show_list(recommender, found, json_)
            return
        lists = recommender.recommend_batch(
            log, k, on_unknown=on_unknown,
            exclude=() if leaving is None else leaving, among=allowed, diversity=diversity, groups=grouped, per_group=per_group,
        )  # fmt: skip
        _write_or_print(lists, out, json_)


@app.command()
def similar(
    model: ModelFolder, item: Annotated[str, typer.Argument(help="Item id.")], k: HowMany = 10, json_: AsJson = False
) -> None:
    """Items that go with an item."""
    with explained():
        recommender = Recommender.load(model)
        _show_list(recommender, recommender.similar_items(_ids([item], recommender)[0], k), json_)


@app.command()
def info(model: ModelFolder, json_: AsJson = False) -> None:
    """What a model is: sizes, channels, encoder, index."""
    with explained():
        _show(Recommender.load(model).info(), json_, str(model))


@app.command()
def demo(
    items: Annotated[int, typer.Option(min=200, help="Items of the generated shop.")] = 2000,
    users: Annotated[int, typer.Option(min=200, help="Users of the generated shop.")] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Fit and try mecold on a generated shop, with real BERT embeddings."""
    from mecold.cli.demo import run_demo

    with explained():
        run_demo(console, n_items=items, n_users=users, seed=seed)


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__, highlight=False)


def _ids(texts: list[str], recommender: Recommender) -> list[ItemId]:
    """Ids as the catalogue has them: a command line has strings only."""
    if recommender.info()["item_ids"] == "strings":
        return list(texts)
    wrong = [text for text in texts if not text.lstrip("-").isdecimal()]
    if wrong:
        raise InvalidDataError(f"The catalogue's ids are integers; these are not: {wrong}.")
    return [int(text) for text in texts]


def _tables(
    paths: dict[str, Path | None], column: list[str], type_: list[str], recommender: Recommender
) -> list[pl.DataFrame | None]:
    """The histories and the files of the rules under canonical names; item ids of a csv are what the catalogue's are."""
    files, types = {what: path for what, path in paths.items() if path is not None}, types_of(type_)
    names = {what: INTERACTION_NAMES if what == "interactions" else ("user_id", "item_id") for what in files}
    renames = renames_of(column, names or {"interactions": INTERACTION_NAMES}, files)
    kinds = {"item_id": pl.String if recommender.info()["item_ids"] == "strings" else pl.Int64, **types}
    found = {}
    for what, path in files.items():
        frame = read_frame(path, what, renames[what], names=names[what], ids=kinds)
        require(frame, ["item_id"], what)
        found[what] = as_said(frame, types, what)
        if what == "interactions" and "user_id" in frame.columns and frame.height:
            kinds = {"user_id": found[what]["user_id"].dtype, **kinds}
    return [found.get(what) for what in paths]


def _for_one(frame: pl.DataFrame | None, option: str) -> list[ItemId] | None:
    """The ids of a file for one user."""
    if frame is None:
        return None
    if "user_id" in frame.columns:
        raise InvalidDataError(f"{option} has a column user_id, but --items is one user without an id. Use --history.")
    return id_column(frame["item_id"], f"item_id of {option}").to_list()


def _show(values: dict[str, Any], as_json: bool, title: str) -> None:
    if as_json:
        typer.echo(json.dumps(values))
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in values.items():
        text = (
            ", ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in value.items())
            if isinstance(value, dict)
            else str(value)
        )
        table.add_row(name, escaped(text))
    console.print(table)


def _show_list(recommender: Recommender, found: list[Recommendation], as_json: bool) -> None:
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
