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
from mecold.cli.terminal import AsJson, Files, Renames, Types, err, escaped, explained, mapping, types_of
from mecold.cli.terminal import out as console
from mecold.data.catalog import TextTemplate
from mecold.data.frames import INTERACTION_NAMES, FrameLike, as_said, read_frame
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
    column: Renames = [],  # noqa: B006
    type_: Types = [],  # noqa: B006
    on_unknown: Annotated[Literal["raise", "drop"], typer.Option(help="What to do with unknown items.")] = "raise",
    json_: AsJson = False,
) -> None:
    """Recommend for one user (by items) or for a file of users (by history).

    Examples:
    mecold recommend model/ --items A1 B7 -k 5

    mecold recommend model/ --history log.parquet --out lists.parquet
    """
    with explained():
        recommender = Recommender.load(model)
        if history is None:
            if out is not None:
                raise InvalidDataError("--out goes with --history; for one user the list is printed.")
            user = recommender.adapt_user(_ids([*items, *(more or [])], recommender), on_unknown=on_unknown)
            _show_list(recommender, recommender.recommend(user, k), json_)
            return
        if items or more:
            raise InvalidDataError("Pass --items for one user or --history for many, not both.")
        log = _history(history, column, type_, recommender)
        lists = recommender.recommend_batch(log, k, on_unknown=on_unknown)
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


def _history(path: Path, column: list[str], type_: list[str], recommender: Recommender) -> FrameLike:
    """The histories under canonical names; item ids of a csv are what the catalogue's are, unless a type is said."""
    types = types_of(type_)
    own = pl.String if recommender.info()["item_ids"] == "strings" else pl.Int64
    renames = mapping(column, INTERACTION_NAMES)
    kinds = {"item_id": own, **types}
    return as_said(read_frame(path, "interactions", renames, names=INTERACTION_NAMES, ids=kinds), types, "interactions")


def _ids(texts: list[str], recommender: Recommender) -> list[ItemId]:
    """Ids as the catalogue has them: a command line has strings only."""
    if recommender.info()["item_ids"] == "strings":
        return list(texts)
    wrong = [text for text in texts if not text.lstrip("-").isdecimal()]
    if wrong:
        raise InvalidDataError(f"The catalogue's ids are integers; these are not: {wrong}.")
    return [int(text) for text in texts]


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
