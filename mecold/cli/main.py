"""The command line: parses arguments, calls the face, prints. `--json` prints one JSON value for machines.

Exit codes: 0 done, 1 mecold refused the input (the reason is on stderr), 2 the command line itself is wrong.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from mecold.choice import choose_encoder
from mecold.cli.ads import app as ads_app
from mecold.cli.audience import audience
from mecold.cli.batch import batch
from mecold.cli.catalogue import hide, show, sync
from mecold.cli.encoder import app as encoder_app
from mecold.cli.evaluate import app as evaluate_app
from mecold.cli.learning import forget, observe, refresh
from mecold.cli.lists import ModelFolder, recommend, similar
from mecold.cli.terminal import AsJson, Files, Renames, Types, escaped, explained, show_values
from mecold.cli.terminal import out as console
from mecold.data.catalog import TextTemplate
from mecold.encode.beside import SideBySide, with_both
from mecold.encode.encoder import Encoder, TextEncoder
from mecold.encode.model_folder import DEFAULT_MODEL
from mecold.errors import InvalidDataError, few
from mecold.meta.config import MetaConfig
from mecold.plugins import Adapter, Broken, adapters
from mecold.recommender import Recommender
from mecold.sealed import check_target
from mecold.store import KIND
from mecold.tuning.train import train_encoder
from mecold.version import __version__

app = typer.Typer(
    help="Few-shot recommendations for cold users and cold items.",
    no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
)  # fmt: skip
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(encoder_app, name="encoder")
app.add_typer(ads_app, name="ads")
for command in (recommend, batch, similar, audience, hide, show, sync, observe, refresh, forget):
    app.command()(command)


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
        Path, typer.Option(help="Parquet, arrow, csv or jsonl: user_id, item_id, optional timestamp, rating, ...")
    ],
    items: Annotated[Path, typer.Option(help="Parquet, arrow, csv or jsonl: item_id and text columns.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    encoder: Annotated[
        list[str], typer.Option(help="Hub name or local folder of a BERT-like model; several stand side by side.")
    ] = [DEFAULT_MODEL],  # noqa: B006
    tune_encoder: Annotated[
        Path | None, typer.Option(help="First train the encoder on these files, and write it to this folder.")
    ] = None,
    text: Annotated[list[str], typer.Option(help="Column that makes the text; repeatable, in order.")] = [],  # noqa: B006
    column: Renames = [],  # noqa: B006
    type_: Types = [],  # noqa: B006
    liked_from: Annotated[float | None, typer.Option(help="Ratings below this are dislikes.")] = None,
    predict: Annotated[list[str], typer.Option(help="Kind of event to predict, such as purchase; repeatable.")] = [],  # noqa: B006
    attributes: Annotated[
        Path | None, typer.Option(help="What else is known of users: user_id and more columns.")
    ] = None,
    index: Annotated[str, typer.Option(help="auto, exact, flat, hnsw, or a FAISS factory string.")] = "auto",
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
        check_target(out, KIND)
        if tune_encoder is not None and len(encoder) > 1:
            raise InvalidDataError(f"--tune-encoder starts from one encoder; --encoder names {few(encoder)}.")
        if tune_encoder is not None and tune_encoder.absolute() == out.absolute():
            raise InvalidDataError(f"--out and --tune-encoder both name '{out}'; give each a folder of its own.")
        log, shop = files.read()
        config = MetaConfig(liked_from=liked_from, predict=tuple(predict))
        parts = [TextEncoder(one, device=device) for one in encoder]
        taken: Encoder = parts[0] if len(parts) == 1 else SideBySide(*parts)
        choice = {}
        if tune_encoder is not None:
            trained = train_encoder(
                shop, log, out=tune_encoder, base=encoder[0], template=template, on_unknown=on_unknown,
                liked_from=liked_from, predict=predict, rng=seed, device=device, progress=not json_,
            )  # fmt: skip
            choice["encoder_choice"] = f"Texts: base. {trained.report.notes[-1]}"
            if trained.weight:
                candidates = with_both(taken, TextEncoder(tune_encoder, device=device))
                found = choose_encoder(
                    candidates, log, shop, config=config, template=template, on_unknown=on_unknown, rng=seed, device=device,
                    progress=not json_,
                )  # fmt: skip
                taken, choice["encoder_choice"] = candidates[found.name], found.told()
        recommender = Recommender(
            taken, template=template, config=config, index=index, device=device, rng=seed, progress=not json_
        )
        report = recommender.fit_meta(log, shop, attributes=attributes, on_unknown=on_unknown)
        recommender.save(out)
        held_out = {k: dict(report.curve(f"held_out/ndcg@10/{k}")).get(report.best_step) for k in (0, 1, 3, 5, 10)}
        answer = {
            "model": str(out),
            **choice,
            "seconds": round(report.seconds, 1),
            "held_out_ndcg@10": held_out,
            **recommender.info(),
        }
        show_values(answer, json_, f"Model written to {out}")


@app.command()
def info(model: ModelFolder, json_: AsJson = False) -> None:
    """What a model is: sizes, channels, encoder, index."""
    with explained():
        show_values(Recommender.load(model).info(), json_, str(model))


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
