"""`mecold batch`: lists for everybody, written to a folder; resumable, for schedulers.

Exit codes: 0 done, 3 done with rows set aside, 1 refused (the reason is on stderr), 2 the command line itself is wrong,
75 stopped or out of disk (the same command goes on).
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mecold.cli.lists import HowMany, ModelFolder
from mecold.cli.terminal import AsJson, Renames, Types, err, explained, renames_of, show_values, types_of
from mecold.errors import InvalidDataError
from mecold.jobs.job import TABLES, Job
from mecold.jobs.local import threads
from mecold.jobs.on_ray import actors
from mecold.jobs.run import Hear, JobStoppedError, Summary, run

DONE_WITH_REJECTS, STOPPED = 3, 75
_EVERY = 10.0  # seconds between two lines where no person looks on


def batch(
    model: ModelFolder,
    histories: Annotated[
        str, typer.Option(help="Parquet, arrow, csv or jsonl; a file, a folder, 'in/*.parquet', s3://...")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; one that a stopped job left is gone on with.")],
    k: HowMany = 10,
    users: Annotated[
        str | None, typer.Option(help="Users who get a list though they have no history: user_id.")
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Items to leave out: item_id; with user_id too, per user.")
    ] = None,
    among: Annotated[
        str | None,
        typer.Option(help="The only items allowed: item_id; with user_id too, per user; others get nothing."),
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Which item belongs to which group: item_id and one column.")
    ] = None,
    per_group: Annotated[
        int | None, typer.Option(min=1, help="With --groups: at most so many of one; 1 if left out.")
    ] = None,
    diversity: Annotated[float, typer.Option(help="0 (off) to 1: how unlike the items of a list are.")] = 0.0,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen/--exclude-seen", help="Let items of the history come back.")
    ] = False,
    min_score: Annotated[float | None, typer.Option(help="Leave out items that score less.")] = None,
    max_history: Annotated[int | None, typer.Option(min=1, help="Of each user only so many rows, the newest.")] = None,
    because: Annotated[int, typer.Option(min=0, help="With so many items of the history that contributed most.")] = 0,
    shots: Annotated[bool, typer.Option(help="With a column of how many items of the history are known.")] = False,
    fingerprint: Annotated[bool, typer.Option(help="With a column that names the model.")] = False,
    long: Annotated[bool, typer.Option(help="One row per item in place of lists.")] = False,
    shard: Annotated[str, typer.Option(help="I/N: every n-th user, from 1/N to N/N, in a folder of its own.")] = "1/1",
    max_rejected: Annotated[float, typer.Option(help="Share of rows that may be set aside.")] = 0.1,
    parts: Annotated[int | None, typer.Option(min=1, help="Files of lists to write; by size if left out.")] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")] = "local",
    restart: Annotated[bool, typer.Option(help="Throw away what another job left in --out.")] = False,
    column: Renames = [],  # noqa: B006
    type_: Types = [],  # noqa: B006
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json_: AsJson = False,
) -> None:
    """Recommend for everybody: any number of users in bounded memory. The same command goes on where a dead one stopped.

    Examples:
    mecold batch model/ --histories 'in/*.parquet' --out out/ -k 20

    mecold batch model/ --histories s3://log/today/ --out out/ --among in_stock.csv --shard 1/4
    """
    with _stoppable(), explained():
        names = {name: tuple(names) for name, names in TABLES.items()}
        renames_of(column, names)
        types_of(type_)
        job = Job(
            model=str(model), histories=histories, out=str(out), k=k, users=users, exclude=exclude, among=among, groups=groups,
            per_group=per_group, diversity=diversity, include_seen=keep_seen, min_score=min_score, max_history=max_history,
            because=because, shots=shots, fingerprint=fingerprint, long=long, shard=_shard(shard),
            max_rejected=max_rejected, parts=parts,
            columns=dict(one.split("=", 1) for one in column), types=dict(one.split("=", 1) for one in type_), device=device,
        )  # fmt: skip
        hear = _as_json if json_ else _progress()
        try:
            summary = run(job, engine=actors if engine == "ray" else threads, hear=hear, restart=restart)
        except JobStoppedError as error:
            err.print(f"[red]stopped:[/red] {error}")
            raise typer.Exit(STOPPED) from error
        _tell(summary, job, as_json=json_)
        if not summary.clean:
            raise typer.Exit(DONE_WITH_REJECTS)


def _tell(summary: Summary, job: Job, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"event": "summary", **asdict(summary)}))
        return
    show_values(asdict(summary), False, f"Lists in {job.folder / 'lists'}")
    if not summary.clean:
        err.print(f"{sum(summary.rejected.values()):,} rows were set aside: {job.folder / 'rejected.parquet'}")


def _shard(text: str) -> tuple[int, int]:
    at, _, of = text.partition("/")
    if not (at.isdecimal() and of.isdecimal()):
        raise InvalidDataError(f"--shard takes I/N, such as 1/4; not {text!r}.")
    return int(at), int(of)


def _as_json(what: dict[str, Any]) -> None:
    """One line per event."""
    typer.echo(json.dumps({"time": round(time.time(), 3), **what}))
    sys.stdout.flush()


def _progress() -> Hear:
    """A line that is written over where a person looks on, else one now and then."""
    last = -_EVERY

    def hear(what: dict[str, Any]) -> None:
        nonlocal last
        now, final = time.monotonic(), what["event"] == "done"
        if what["event"] not in ("part", "sorted") or (now - last < (0.2 if err.is_terminal else _EVERY) and not final):
            return
        last = now
        line = f"sorted {what['done']:,} of {what['of']:,} groups of files"
        if what["event"] == "part":
            line = (
                f"{what['users']:,} users, part {what['done']:,} of {what['of']:,}, {what['users_per_second']:,} users/s, "
                f"{what['seconds_left']:,.0f} s left"
            )
        err.print(line, end="\r" if err.is_terminal else "\n", highlight=False)

    return hear


@contextmanager
def _stoppable() -> Iterator[None]:
    """A signal that asks to stop is obeyed after the units at hand, with an exit code of its own."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        err.print("[yellow]stopped:[/yellow] the same command goes on where this one stopped")
        raise typer.Exit(STOPPED) from error
    finally:
        signal.signal(signal.SIGTERM, before)
