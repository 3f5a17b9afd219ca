"""Tomorrow's clicks: what is observed counts as if it had been read with the rest, and what is forgotten as if it never was."""

import copy
import threading
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold import InvalidDataError, ModelFileError, Recommender, UnknownUserError
from mecold.data.archive import Archive, rows_of
from mecold.data.catalog import Catalog
from mecold.data.events import Events
from mecold.data.interactions import Interactions
from mecold.math.drift import moved

from .conftest import SMALL, bitwise


def space_of(recommender):
    return recommender._state[1].packed().space


def assert_same_space(one, other):
    """All that is made of a log and of texts, but for what new items are guessed to have: that hangs on calibrated gains."""
    one, other = space_of(one), space_of(other)
    assert list(one.channels) == list(other.channels)
    torch.testing.assert_close(one.counts, other.counts)
    assert torch.equal(one.new, other.new)
    known = ~one.new
    for name, channel in one.channels.items():
        torch.testing.assert_close(channel.item[known], other[name].item[known], rtol=1e-4, atol=1e-4)
        if channel.support is not None:
            torch.testing.assert_close(channel.support[known], other[name].support[known], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.lists.values, other.lists.values, rtol=1e-4, atol=1e-4)


def columns_of(shop, kind):
    """The shop's log with what else a log may have."""
    log, rows = shop.interactions, np.arange(shop.interactions.height)
    if kind == "times":
        return log, SMALL
    if kind == "no order":
        return log.drop("timestamp"), SMALL
    if kind == "ratings":
        return log.with_columns(rating=pl.Series(rows % 5 + 1.0)), replace(SMALL, liked_from=3.0)
    kinds = np.where(rows % 4 == 0, "buy", "view")
    return log.with_columns(event=pl.Series(kinds)), replace(SMALL, predict=("buy",))


@bitwise
@pytest.mark.filterwarnings("ignore::mecold.errors.DataWarning")
@pytest.mark.parametrize("kind", ["times", "no order", "ratings", "events"])
def test_what_is_observed_and_refreshed_is_what_a_fit_of_all_makes(shop, encoder, kind):
    log, config = columns_of(shop, kind)
    config = replace(config, training=replace(config.training, calibrate=False, epochs=1))
    rows = np.random.default_rng(0).random(log.height)
    parts = [log.filter(pl.Series(part)) for part in (rows < 0.8, (rows >= 0.8) & (rows < 0.9), rows >= 0.9)]
    whole, grown = (Recommender(encoder, config=config, rng=0) for _ in range(2))
    whole.fit_meta(pl.concat(parts), shop.items)
    grown.fit_meta(parts[0], shop.items)
    before = grown.info()["model"]
    for part in parts[1:]:
        grown.observe(part)
    assert grown.info()["model"] == before  # states stay valid until the refresh
    at_once = {name: space_of(grown)[name].item.clone() for name in ("goals",) if kind == "events"}
    grown.refresh()
    assert grown.info()["log"]["waiting"] == 0
    assert_same_space(grown, whole)
    for name, item in at_once.items():  # who viewed, and buys now, counts at once
        known = ~space_of(grown).new
        torch.testing.assert_close(space_of(grown)[name].item[known], item[known])


def test_counts_are_as_of_now_before_a_refresh(shop, own):
    item, other = shop.interactions["item_id"][0], shop.interactions["item_id"][5]
    user = shop.interactions["user_id"][0]
    shelf = own._state[1]
    at, there = shelf.catalog.row(item), float(shelf.space.counts[shelf.catalog.row(item)])
    time = float(shop.interactions["timestamp"].max())
    new = pl.DataFrame(
        {
            "user_id": ["new 1", "new 2", user],
            "item_id": [item, item, item],  # the last has it already
            "timestamp": [time] * 3,
        }
    )
    popular, state = float(shelf.space.popularity[at]), own.adapt_user([other])
    found = own.observe(new)
    assert found == (3, 2, 3)
    now = own._state[1].space
    assert float(now.counts[at]) == there + 2
    assert float(now.popularity[at]) > popular
    assert own.recommend(state, 3)  # a state made before is still good
    assert float(own.scores(state, [item])[0]) > float(_scores(shelf, own, state, at))


def _scores(shelf, own, state, at):
    return shelf.space.scores_among(torch.tensor([at]), shelf.vectors_of(state))[0, 0]


def test_a_new_item_becomes_a_known_one(shop, own):
    own.add_items(pl.DataFrame({"item_id": ["fresh"], "title": ["one"]}))
    time = float(shop.interactions["timestamp"].max())
    buyers = shop.interactions["user_id"].unique().sort()[:40]
    own.observe(pl.DataFrame({"user_id": buyers, "item_id": ["fresh"] * 40, "timestamp": [time] * 40}))
    assert own.info()["cold_items"] >= 1
    own.refresh()
    shelf = own._state[1]
    row = shelf.catalog.row("fresh")
    assert not shelf.space.new[row]
    assert float(shelf.space.counts[row]) == 40
    neighbours = shelf.space.lists.values[row]
    assert (neighbours > 0).any()


@bitwise
def test_a_user_who_is_forgotten_was_never_there(shop, encoder):
    config = replace(SMALL, training=replace(SMALL.training, calibrate=False, epochs=1))
    users = shop.interactions["user_id"].unique().sort()
    leaving = users[::50].to_list()
    whole, less = (Recommender(encoder, config=config, rng=0) for _ in range(2))
    whole.fit_meta(shop.interactions, shop.items)
    less.fit_meta(shop.interactions.filter(~pl.col("user_id").is_in(leaving)), shop.items)
    whole.forget_user(leaving)
    assert_same_space(whole, less)
    assert not set(leaving) & set(whole._archive.users.to_list())


def test_forgetting_takes_what_waits_too(shop, own):
    time = float(shop.interactions["timestamp"].max()) + 1
    own.observe(pl.DataFrame({"user_id": ["guest"], "item_id": [shop.items["item_id"][0]], "timestamp": [time]}))
    own.forget_user("guest")
    assert own.info()["log"]["since_fit"] == own.info()["log"]["waiting"] == 0
    with pytest.raises(UnknownUserError, match="'guest'"):
        own.forget_user("guest")
    before = own.info()
    with pytest.raises(InvalidDataError, match=r"too small|Nothing that anybody liked"):
        own.forget_user(own._archive.users.to_list())
    assert own.info() == before


def test_removed_items_are_gone_from_the_log(shop, own):
    item = shop.interactions["item_id"][0]
    text = own.text_of(item)
    own.remove_items([item])
    own.add_items(pl.DataFrame({"item_id": [item], "title": ["one"]}))
    own.refresh()
    shelf = own._state[1]
    assert text != own.text_of(item)
    assert bool(shelf.space.new[shelf.catalog.row(item)])


def test_a_refresh_lets_readers_and_observers_go_on(shop, own, monkeypatch):
    import mecold.observing as room

    started, go_on, make = threading.Event(), threading.Event(), room.renewed

    def slow(*parts):
        started.set()
        assert go_on.wait(30)
        return make(*parts)

    monkeypatch.setattr(room, "renewed", slow)
    worker = threading.Thread(target=own.refresh)
    worker.start()
    assert started.wait(30)
    time = float(shop.interactions["timestamp"].max())
    item = shop.interactions["item_id"][0]
    before = float(own._state[1].space.counts[own._state[1].catalog.row(item)])
    found = own.observe(pl.DataFrame({"user_id": ["late"], "item_id": [item], "timestamp": [time]}))
    assert own.recommend(own.adapt_user([item]), 3)
    go_on.set()
    worker.join(30)
    assert found.waiting == own.info()["log"]["waiting"] == 1
    assert float(own._state[1].space.counts[own._state[1].catalog.row(item)]) == before + 1


# ---- what is refused


def test_what_cannot_be_observed_is_refused_and_changes_nothing(shop, own, tmp_path):
    item, time = shop.items["item_id"][0], float(shop.interactions["timestamp"].max())
    good = pl.DataFrame({"user_id": ["a"], "item_id": [item], "timestamp": [time]})
    own.observe(good)
    before = own.info()
    for bad, told in (
        (good, "observed before"),
        (good.drop("timestamp"), "ordered by `timestamp`"),
        (good.with_columns(user_id=pl.Series([7])), "user ids .* Int64"),
    ):
        with pytest.raises(InvalidDataError, match=told):
            own.observe(bad)
    with pytest.raises(ModelFileError):
        own.observe(good.with_columns(timestamp=pl.lit(time + 1)), folder=tmp_path / "nothing")
    with pytest.raises(InvalidDataError, match="no ids of users"):
        own.forget_user([True])
    own.forget_user([])
    assert own.info() == before
    assert own.observe(good.clear()) == (0, 0, 1)
    own.save(tmp_path / "bare", log=False)
    assert not list((tmp_path / "bare").glob("log*"))
    with pytest.raises(InvalidDataError, match="has no log"):
        Recommender.load(tmp_path / "bare").observe(good)
    with pytest.raises(InvalidDataError, match="has no log"):
        Recommender.from_items(shop.items, encoder=own._encoder, config=SMALL).refresh()


# ---- on disk


def batch_of(shop, users):
    time = float(shop.interactions["timestamp"].max())
    items = shop.items["item_id"].gather(range(len(users)))
    return pl.DataFrame({"user_id": users, "item_id": items, "timestamp": [time + 1.0] * len(users)})


def test_a_folder_keeps_what_was_acknowledged(shop, fitted, encoder, tmp_path):
    fitted.save(tmp_path / "m")
    first, second = (Recommender.load(tmp_path / "m", encoder=encoder) for _ in range(2))
    first.observe(batch_of(shop, ["a", "b"]), folder=tmp_path / "m")
    second.observe(batch_of(shop, ["c"]), folder=tmp_path / "m")
    both = Recommender.load(tmp_path / "m")
    assert both.info()["log"]["waiting"] == 3
    first.save(tmp_path / "m")  # has not read what the second observed
    again = Recommender.load(tmp_path / "m")
    assert sorted(again._archive.waiting["user_id"]) == ["a", "b", "c"]
    assert len(list((tmp_path / "m" / "journal").iterdir())) == 1
    torch.testing.assert_close(space_of(again).counts, space_of(both).counts)
    again.refresh()
    again.save(tmp_path / "m")
    last = Recommender.load(tmp_path / "m")
    assert last.info()["log"]["waiting"] == 0
    assert not (tmp_path / "m" / "journal").exists()
    with pytest.raises(InvalidDataError, match="observed before"):
        last.observe(batch_of(shop, ["c"]))


def test_half_an_entry_is_nothing_and_a_damaged_one_is_named(shop, fitted, tmp_path):
    fitted.save(tmp_path / "m")
    one = Recommender.load(tmp_path / "m")
    one.observe(batch_of(shop, ["a"]), folder=tmp_path / "m")
    (entry,) = (tmp_path / "m" / "journal").iterdir()
    half = entry.with_name(f".{entry.name}.0123abcd.new")  # what a kill leaves
    half.write_bytes(b"PAR1")
    assert Recommender.load(tmp_path / "m").info()["log"]["waiting"] == 1
    one.observe(batch_of(shop, ["b"]), folder=tmp_path / "m")
    assert not half.exists()
    batch = pl.read_parquet(entry).with_columns(user_id=pl.lit("somebody else"))
    batch.write_parquet(entry)
    for damage in (lambda: None, lambda: entry.write_bytes(entry.read_bytes()[:-20]), lambda: entry.write_bytes(b"")):
        damage()
        with pytest.raises(ModelFileError, match=rf"{entry.name}' of the journal in .* is damaged.*Move it away"):
            Recommender.load(tmp_path / "m")
    (tmp_path / "m" / "journal" / ".DS_Store").write_bytes(b"")
    one.save(tmp_path / "m")
    assert Recommender.load(tmp_path / "m").info()["log"]["waiting"] == 2


def test_another_model_takes_no_entry(shop, fit, fitted, tmp_path):
    fitted.save(tmp_path / "m")
    one = Recommender.load(tmp_path / "m")
    fit(shop.interactions.head(3000), shop.items).save(tmp_path / "m")
    with pytest.raises(ModelFileError, match="another model"):
        one.observe(batch_of(shop, ["a"]), folder=tmp_path / "m")
    assert one.info()["log"]["waiting"] == 0


def test_nobody_saves_over_what_they_have_not_read(shop, fitted, encoder, tmp_path):
    place = tmp_path / "m"
    fitted.save(place)
    first, second, third = (Recommender.load(place, encoder=encoder) for _ in range(3))
    first.observe(batch_of(shop, ["a"]), folder=place)
    second.observe(batch_of(shop, ["b"]), folder=place)
    first.save(place)
    with pytest.raises(ModelFileError, match=r"saved by somebody else.*Load it again"):
        second.save(place)
    with pytest.raises(ModelFileError, match="saved by somebody else"):
        second.save(place, log=False)
    first.save(place)  # its own it may
    second.save(tmp_path / "elsewhere")
    assert sorted(Recommender.load(place)._archive.waiting["user_id"]) == ["a", "b"]
    third.forget_user(shop.interactions["user_id"][0])
    with pytest.raises(ModelFileError, match="saved by somebody else"):
        third.save(place)
    fit_anew = Recommender(encoder, config=SMALL, rng=0)
    fit_anew.fit_meta(shop.interactions, shop.items)
    fit_anew.save(place)  # another fit takes its place
    assert Recommender.load(place).info()["log"]["waiting"] == 0


def test_who_is_forgotten_is_in_no_entry(shop, fitted, encoder, tmp_path):
    place, user = tmp_path / "m", shop.interactions["user_id"][0]
    fitted.save(place)
    first, second = (Recommender.load(place, encoder=encoder) for _ in range(2))
    second.observe(batch_of(shop, [user]), folder=place)
    first.forget_user(user)
    with pytest.raises(ModelFileError, match=r"rows of users who are to be forgotten"):
        first.save(place)
    first = Recommender.load(place, encoder=encoder)
    first.forget_user(user)
    copied = copy.deepcopy(first)  # a copy has read the entry, too, and must not carry it
    first.save(place.with_name("elsewhere"))
    with pytest.raises(ModelFileError, match="to be forgotten"):
        copied.save(place)
    first.save(place)
    assert user not in Recommender.load(place)._archive.users.to_list()
    assert not any(user.encode() in path.read_bytes() for path in place.rglob("log*"))
    first.save(place)


def test_a_folder_that_can_only_be_filled_keeps_entries_until_the_new_model_is_named(
    shop, fitted, tmp_path, monkeypatch
):
    import mecold.sealed

    place = tmp_path / "m"
    place.mkdir()
    monkeypatch.chdir(place)
    fitted.save(place)
    one = Recommender.load(place)
    one.observe(batch_of(shop, ["a"]), folder=place)

    def killed(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(mecold.sealed, "_point", killed)
        with pytest.raises(ModelFileError):
            one.save(place)
    assert Recommender.load(place).info()["log"]["waiting"] == 1
    one.save(place)
    assert not list((place / "journal").iterdir())
    assert Recommender.load(place).info()["log"]["waiting"] == 1


def test_a_child_that_was_forked_while_a_folder_was_held_holds_nobody_up(fitted, tmp_path):
    import os
    import time

    from mecold.journal import held

    fitted.save(tmp_path / "m")
    with held(tmp_path / "m"):
        child = os.fork()
        if not child:
            time.sleep(20)
            os._exit(0)
    begin = time.monotonic()
    with held(tmp_path / "m"):
        assert time.monotonic() - begin < 10
    os.kill(child, 9)
    os.waitpid(child, 0)


# ---- the archive alone


@st.composite
def logs(draw):
    rows = draw(st.integers(1, 30))
    cell = {
        "user_id": st.sampled_from("abcd"),
        "item_id": st.sampled_from(["p", "q", "r", "s", "t"]),
        "timestamp": st.integers(0, 6).map(float),
        "label": st.sampled_from([1.0, -1.0, 0.5]),
        "event": st.sampled_from(["buy", "cart", "view"]),
    }
    table = {name: draw(st.lists(value, min_size=rows, max_size=rows)) for name, value in cell.items()}
    columns = ["user_id", "item_id", "label", *draw(st.sampled_from([["timestamp"], ["timestamp", "event"], []]))]
    cuts = sorted(draw(st.lists(st.integers(1, rows), min_size=1, max_size=3)))
    frame = pl.DataFrame(table).select(columns)
    parts = np.split(np.arange(rows), cuts)
    return frame, [frame[part] for part in parts if len(part)]


@pytest.mark.filterwarnings("ignore::mecold.errors.DataWarning")
@settings(max_examples=150, deadline=None)
@given(logs(), st.sets(st.sampled_from("abcd"), max_size=2))
def test_a_log_in_parts_is_the_log(drawn, leaving):
    frame, parts = drawn
    catalog = Catalog.of(pl.Series("item_id", ["p", "q", "r", "s", "t"]), ["one"] * 5)
    rule = Events(("buy", "cart", "view")) if "event" in frame.columns else None

    def read(part, events=rule):
        return Interactions.read(part, catalog, events=events, may_be_empty=True)

    first = read(parts[0])
    archive = Archive.of(first, first.labels_from(None), catalog.ids, np.zeros(3, np.uint8))
    for part in parts[1:]:
        log = read(part, first.events)
        batch = rows_of(log, catalog.ids, log.labels_from(None))
        try:
            archive = archive.observed(batch)
        except InvalidDataError as error:
            assert "observed before" in str(error)
    left = archive.merged().without_users(pl.Series("user_id", sorted(leaving), dtype=pl.String))
    found = left.in_rows_of(catalog)
    whole = read(frame.filter(~pl.col("user_id").is_in(sorted(leaving))), first.events)
    assert found.users.to_list() == whole.users.to_list()
    for name in ("offsets", "items", "labels", "times", "kinds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    again = Archive.read(left.tables(), left.about(), first.events)
    assert again.log.users.equals(left.log.users)
    np.testing.assert_array_equal(again.in_rows_of(catalog).items, found.items)


@pytest.mark.filterwarnings("ignore::mecold.errors.DataWarning")
def test_a_log_is_gone_on_with_in_its_own_order(shop, fit):
    by_place = shop.interactions.with_columns(position=pl.int_range(pl.len()).over("user_id")).drop("timestamp")
    user, item = by_place["user_id"][0], shop.items["item_id"][3]
    new = pl.DataFrame({"user_id": [user], "item_id": [item], "position": [999], "timestamp": [1.7e9]})
    model = fit(by_place, shop.items)
    assert model.observe(new).rows == 1
    shuffled = fit(by_place.drop("position"), shop.items)
    assert shuffled.observe(new).waiting == shuffled.observe(new).waiting == 1  # again is no news
    rated = fit(
        by_place.with_columns(rating=pl.Series([1.0, 5.0] * by_place.height).head(by_place.height)), shop.items,
        replace(SMALL, liked_from=3.0),
    )  # fmt: skip
    with pytest.raises(InvalidDataError, match="neither `rating` nor `label`"):
        rated.observe(new)


# ---- what is known of users and of moments


@bitwise
@pytest.mark.filterwarnings("ignore::mecold.errors.DataWarning")
def test_users_and_moments_are_known_as_in_a_fit(shop, encoder):
    config = replace(SMALL, training=replace(SMALL.training, calibrate=False, epochs=1))
    users = shop.interactions["user_id"].unique().sort()
    known = pl.DataFrame({"user_id": users, "club": ["ab"[n % 2] for n in range(len(users))]})
    places = range(shop.interactions.height)
    log = shop.interactions.with_columns(device=pl.Series(["phone" if n % 2 else "desk" for n in places]))
    part = np.random.default_rng(0).random(log.height) < 0.9
    whole, grown = (Recommender(encoder, config=config, rng=0) for _ in range(2))
    whole.fit_meta(log, shop.items, attributes=known, context=["device"])
    grown.fit_meta(log.filter(pl.Series(part)), shop.items, attributes=known, context=["device"])
    later = log.filter(pl.Series(~part))
    with pytest.raises(InvalidDataError, match="device"):
        grown.observe(later.drop("device"), attributes=known)
    with pytest.raises(InvalidDataError, match="knows no attributes 'team'"):
        grown.observe(later, attributes=known.rename({"club": "team"}))
    grown.observe(later, attributes=known)
    at_once = space_of(grown)["groups"].item.clone()
    grown.refresh()
    assert_same_space(grown, whole)
    known = ~space_of(grown).new
    torch.testing.assert_close(space_of(grown)["groups"].item[known], at_once[known])  # counted at once
    device = pl.DataFrame({"device": ["desk"]})
    again = log.head(1).with_columns(timestamp=pl.col("timestamp") + 1).drop("device").hstack(device)
    assert grown.observe(again).rows == 1  # has it already: nothing is counted
    user = pl.DataFrame(
        {"user_id": users.head(1), "item_id": shop.items["item_id"].tail(1), "timestamp": [1.8e9], "device": ["desk"]}
    )
    grown.observe(user)  # who they are is known
    grown.refresh()
    assert (grown._archive.log.groups[grown._archive.places(users.head(1))] >= 0).any()


# ---- kills


def test_a_killed_observer_loses_nothing_that_was_acknowledged(shop, fitted, tmp_path):
    """Processes that observe one user after another are killed at random; whoever was told of is there."""
    import signal
    import subprocess
    import sys
    import time

    fitted.save(tmp_path / "m")
    script = (
        "import sys, polars as pl; from mecold import Recommender\n"
        "model = Recommender.load(sys.argv[1])\n"
        "for n in range(10_000):\n"
        "    user = f'{sys.argv[2]}-{n}'\n"
        "    model.observe(pl.DataFrame({'user_id': [user], 'item_id': ['p1'], 'timestamp': [1.7e9]}), folder=sys.argv[1])\n"
        "    print(user, flush=True)\n"
    )
    told, chance = set(), np.random.default_rng(0)
    for attempt in range(4):
        command = [sys.executable, "-c", script, str(tmp_path / "m")]
        pair = [subprocess.Popen([*command, f"{attempt}{one}"], stdout=subprocess.PIPE, text=True) for one in "xy"]
        lines = [child.stdout.readline() for child in pair]  # both are at work
        time.sleep(float(chance.uniform(0.02, 0.3)))
        for child, first in zip(pair, lines, strict=True):
            child.send_signal(signal.SIGKILL)
            told |= {
                line.strip() for line in [first, *child.stdout.read().splitlines(keepends=True)] if line.endswith("\n")
            }
            child.wait()
    found = Recommender.load(tmp_path / "m")
    there = set(found._archive.users.to_list())
    assert len(told) >= 8
    assert told <= there
    assert len(there - told - set(shop.interactions["user_id"])) <= 8  # on disk, and killed before it was told


# ---- the command line


def test_commands(shop, fitted, tmp_path):
    import json

    from typer.testing import CliRunner

    from mecold.cli.main import app

    fitted.save(tmp_path / "m")
    batch_of(shop, ["a", "b"]).rename({"user_id": "customer"}).write_csv(tmp_path / "today.csv")
    files = ["--interactions", str(tmp_path / "today.csv"), "--column", "user_id=customer"]
    command = ["observe", str(tmp_path / "m"), *files]
    run = CliRunner().invoke
    done = run(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"rows": 2, "new_users": 2, "waiting": 2}
    again = run(app, command)
    assert again.exit_code == 1
    assert "observed before" in again.output
    assert json.loads(run(app, ["info", str(tmp_path / "m"), "--json"]).stdout)["log"]["waiting"] == 2
    refreshed = json.loads(run(app, ["refresh", str(tmp_path / "m"), "--json"]).stdout)
    assert refreshed["waiting"] == 0
    assert refreshed["since_fit"] == 2
    less = json.loads(run(app, ["forget", str(tmp_path / "m"), "a", "--json"]).stdout)
    assert less["users"] == refreshed["users"] - 1
    missing = run(app, ["forget", str(tmp_path / "m"), "a"])
    assert missing.exit_code == 1
    assert "not in the model's log: 'a'" in missing.output


# ---- how far the data have moved


def test_what_the_model_says_of_its_age(shop, own):
    at_fit = own.info()["log"]
    assert (at_fit["since_fit"], at_fit["days_since_fit"], at_fit["moved"]) == (0, 0.0, 0.0)
    same = shop.interactions.with_columns(user_id="again " + pl.col("user_id"), timestamp=pl.col("timestamp") + 86_400)
    own.observe(same)
    assert own.info()["log"]["days_since_fit"] == 1.0
    assert own.info()["log"]["moved"] == 0.0
    few = shop.items["item_id"].head(3)
    own.observe(pl.DataFrame({"user_id": [f"n{n}" for n in range(6000)], "item_id": [few[n % 3] for n in range(6000)],
                              "timestamp": [1.75e9] * 6000}))  # fmt: skip
    moved = own.info()["log"]["moved"]
    assert 0.3 < moved < 1
    own.refresh()
    assert own.info()["log"]["moved"] == moved  # a refresh makes the space anew, not the head


def test_chance_is_no_move():
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(500, 0.3))
    for rows in (200, 2_000, 50_000):
        found = [moved(rng.multinomial(20_000, share), rng.multinomial(rows, share)) for _ in range(20)]
        assert np.mean(found) < 0.03
    assert moved(np.array([500, 0]), np.array([0, 500])) > 0.95
    assert moved(np.array([3, 0]), np.array([0, 0])) == 0.0


def test_rows_older_than_the_log_are_taken_in(shop, own):
    first = shop.interactions["timestamp"].min()
    old = pl.DataFrame(
        {"user_id": ["early", "early"], "item_id": ["p1", "p2"], "timestamp": [first - 2000, first - 1000]}
    )
    before = own.info()["log"]
    seen = own.observe(old)
    assert (seen.rows, seen.new_users) == (2, 1)
    own.refresh()
    after = own.info()["log"]
    assert (after["users"], after["rows"]) == (before["users"] + 1, before["rows"] + 2)
    assert len(own.recommend(own.adapt_user(["p1", "p2"]), k=10)) == 10
