"""What enters at the public doors: values, words, times; and what other libraries raise."""

import datetime
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch

from mecold import (
    DataWarning,
    Interaction,
    InvalidDataError,
    MecoldError,
    UnknownItemError,
)  # fmt: skip
from mecold.cli.terminal import escaped
from mecold.errors import InvalidDataError as Invalid
from mecold.errors import few, foreign
from mecold.evaluation.results import Outcome, Results, TaskSet, claim_folder
from mecold.space.far import told_far
from mecold.values import generator, number, path, whole

LOG = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["p1", "p2", "p3"]})


@pytest.mark.parametrize("k", [np.uint8(255), np.int8(127), np.int64(3), 2**70])
def test_a_number_of_any_type_is_the_number_that_it_is(k):
    assert whole(k, "k") == min(int(k), 2**31 - 1)
    assert type(whole(k, "k")) is int


@pytest.mark.parametrize("k", [0, -1, True, 1.0, "3", None, np.bool_(True), [1], float("nan")])
def test_what_is_no_positive_integer_is_refused(k):
    with pytest.raises(InvalidDataError, match="positive integer"):
        whole(k, "k")


@pytest.mark.parametrize("value", ["0.5", None, float("nan"), 2, -0.1, True, 1j, np.complex64(0)])
def test_what_is_no_number_of_the_range_is_refused(value):
    with pytest.raises(InvalidDataError, match="between 0 and 1"):
        number(value, "diversity", 0, 1)


@pytest.mark.parametrize("value", [None, 1, b"a", "a\0b", "\ud800", "x" * 300, []])
def test_what_is_no_path_is_refused(value):
    with pytest.raises(InvalidDataError, match="path"):
        path(value, "folder")


def test_a_service_meets_numpy_numbers_and_misspelt_words(fitted, tmp_path):
    script = """
import sys, warnings
import numpy as np, polars as pl
from mecold import *
r = Recommender.load(sys.argv[1])
u = r.adapt_user(["p1"])
for k in (np.uint8(255), np.uint8(7), np.int8(127)):
    assert len(r.recommend(u, k)) == min(int(k), 299), k
    assert len(r.similar_items("p1", k)) == min(int(k), 299), k
    assert r.recommend_batch(pl.DataFrame({"user_id": ["a"], "item_id": ["p1"]}), k).height == min(int(k), 299), k
log = pl.DataFrame({"user_id": ["a"], "item_id": ["nope"]})
for word in ("Raise", None, 1, "ignore", "", b"drop", []):
    for call in (lambda: r.adapt_user(["nope"], on_unknown=word), lambda: r.adapt_users(log, on_unknown=word),
                 lambda: r.recommend_batch(log, on_unknown=word), lambda: r.explain(["nope"], "p1", on_unknown=word)):
        try:
            call()
        except InvalidDataError as error:
            assert "'raise' or 'drop'" in str(error)
        else:
            raise AssertionError(word)
slips = (
    lambda: r.adapt_user({"p1": 5}), lambda: r.adapt_user({"p1", "p2"}), lambda: r.adapt_user([("p1", 5)]),
    lambda: r.recommend(["p1"]), lambda: r.adapt_user([Interaction("p1", event=3)]),
    lambda: r.recommend_batch(log, columns=["a"]), lambda: r.recommend(u, include_seen="no"),
    lambda: Recommender(rng=-1), lambda: Recommender(device=None), lambda: Recommender(device="meta"),
    lambda: Recommender(config={}), lambda: Recommender("x"), lambda: TextTemplate(fields="title"),
    lambda: MetaConfig(liked_from="4"), lambda: MetaConfig(events={"a": "b"}), lambda: TrainConfig(epochs="3"),
    lambda: TrainConfig(folds=2.5), lambda: TrainConfig(lr=float("nan")), lambda: FactorConfig(l2=None),
)
for slip in slips:
    try:
        slip()
    except InvalidDataError as error:
        assert len(str(error)) < 2000
    else:
        raise AssertionError(slip)
"""
    fitted.save(tmp_path / "m")
    call = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "m")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_fit_works_after_a_user_was_served_in_a_fresh_process(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    script = f"""
import numpy as np
from mecold import *
from mecold.shop import make_shop
r = Recommender.load({str(tmp_path / "m")!r})
r.recommend(r.adapt_user(["p1"]))
shop = make_shop(200, 200, rng=0)
texts = Catalog.read(shop.items).texts
vectors = np.random.default_rng(0).standard_normal((len(texts), 16))
encoder = PrecomputedEncoder.of(list(dict.fromkeys(texts)), vectors[:len(set(texts))])
config = MetaConfig(FactorConfig(8, 8), training=TrainConfig(epochs=1, calibrate=False))
Recommender(encoder, config=config, rng=0).fit_meta(shop.interactions, shop.items)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["timestamp", "rating", "weight", "label"])
def test_a_column_of_infinities_is_not_a_column_of_nothing(fitted, name, value):
    with pytest.raises(InvalidDataError, match="infinite"):
        fitted.recommend_batch(LOG.with_columns(pl.lit(value).alias(name)), 2)


@pytest.mark.parametrize("value", [1e39, 1e300])
@pytest.mark.parametrize("name", ["rating", "weight"])
def test_numbers_that_float32_does_not_hold_are_refused_with_their_rows(fitted, name, value):
    with pytest.raises(InvalidDataError, match=r"1 of 3 .*beyond 3\.4e38 \(rows 1\)"):
        fitted.recommend_batch(LOG.with_columns(pl.Series(name, [1.0, value, 1.0])), 2)


@pytest.mark.parametrize(
    "text", ["2026-01-05", "2026-01-05 00:00:00 UTC", "2026-01-05T00:00:00Z", "2026-01-05T02:00+02:00", "1767571200"]
)
def test_times_as_text_are_times_in_a_list_in_a_frame_and_in_a_file(fitted, tmp_path, text):
    seconds = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC).timestamp()
    expected = fitted.adapt_user([Interaction("p1", time=seconds)])
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["p1"], "timestamp": [text]})
    frame.write_csv(tmp_path / "log.csv")
    assert fitted.adapt_user([Interaction("p1", time=text)]) == expected
    assert fitted.adapt_users(frame)["a"] == expected
    assert fitted.adapt_users(tmp_path / "log.csv")["a"] == expected


def last_of(fitted):
    clock = next(one.clock for one in fitted._state[1].space.channels.values() if one.clock is not None)
    return clock, clock.span[1]


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1000, "Divide them by 1,000,"), (1e9, "Divide them by 1,000,000,000,"), (1 / 86_400, "Multiply them by 86,400,")],
)
def test_times_of_another_clock_are_told_with_the_factor_and_read_nothing(fitted, factor, said):
    clock, last = last_of(fitted)
    with pytest.warns(DataWarning, match=f"1 of 1 times lie .*{said}"):
        user = fitted.adapt_user([Interaction("p1", time=last * factor)])
    assert user == fitted.adapt_user([Interaction("p1")])
    frame = LOG.with_columns(timestamp=last * factor)
    with pytest.warns(DataWarning, match=f"3 of 3 times lie .*{said}"):
        fitted.adapt_users(frame)
    with pytest.warns(DataWarning, match=f"3 of 3 times lie .*{said}"):
        fitted.recommend_batch(frame, 2)
    assert not clock.reading(torch.tensor([last * factor], dtype=torch.float64)).any()


def test_times_on_the_clock_shortly_behind_it_and_positions_are_not_remarked_on(fitted):
    clock, last = last_of(fitted)
    first, space = clock.span[0], fitted._state[1].space
    for times in ([first, last], [last + 3 * (last - first)], [1.0, 2.0, 9.0], [np.nan]):
        assert told_far(space, np.array(times)) is None
    assert "1 of 2 times" in told_far(space, np.array([last, 4e9]))


def test_whatever_a_library_raises_comes_out_as_an_error_of_ours_with_a_way_out():
    class PanicException(BaseException):
        pass

    for raised in (
        KeyError("x" * 9999),
        MemoryError(),
        RecursionError(),
        PanicException("panic\nmore"),
        OSError(28, "full"),
    ):
        with pytest.raises(Invalid, match=r"It failed.*Do it") as found, foreign(Invalid, "It failed", "Do it so."):
            raise raised
        assert len(str(found.value)) < 500
    for through in (KeyboardInterrupt(), UnknownItemError("mine")):
        with pytest.raises(type(through)), foreign(Invalid, "It failed", "Do it so."):
            raise through


def test_messages_stay_short_and_keep_their_end():
    assert len(few(["x" * 10_000] * 5)) < 400
    text = str(MecoldError("a" * 5000 + " Do it so."))
    assert len(text) < 2000
    assert text.endswith("Do it so.")


@pytest.mark.parametrize("title", ["[/red]", "\\[/red]", "\\\\[b]", "[link=x]", "\x1b[2J", "a\x07\x9bb", "\\"])
def test_a_title_is_printed_as_it_is_and_tells_the_terminal_nothing(title):
    from rich.console import Console
    from rich.table import Table

    table = Table("text")
    table.add_row(escaped(title))
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as caught:
        console.print(table)
    shown = caught.get()
    assert not set(shown) & {"\x07", "\x9b"}
    assert "\x1b[2J" not in shown
    assert "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in title) in shown


def test_a_damaged_result_is_made_again_whatever_the_damage(tmp_path):
    results, lists = Results(tmp_path), {TaskSet("test", 1): np.arange(5000).reshape(100, 50)}
    results.save("key", Outcome(lists, np.arange(9)))
    file, dice = tmp_path / "key.npz", np.random.default_rng(0)
    before = file.read_bytes()
    assert results.load("key") is not None
    for _ in range(200):
        data = bytearray(before)
        for place in dice.integers(0, len(data), 3):
            data[place] ^= 1 << int(dice.integers(8))
        file.write_bytes(bytes(data))
        found = results.load("key")
        assert found is None or (found.lists[TaskSet("test", 1)] == lists[TaskSet("test", 1)]).all()


def test_a_report_that_was_killed_at_its_beginning_can_go_on(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / ".run.json.part").write_text("")
    claim_folder(tmp_path / "report", {"a": 1})
    (tmp_path / "report" / "run.json").write_text("[1]")
    with pytest.raises(InvalidDataError, match="another run"):
        claim_folder(tmp_path / "report", {"a": 1})


def test_a_seed_of_any_integer_type_or_a_generator_is_taken():
    for seed in (None, 0, np.int64(3), np.random.default_rng(0)):
        assert isinstance(generator(seed), np.random.Generator)
    for seed in (-1, "a", 1.5, True):
        with pytest.raises(InvalidDataError, match="rng"):
            generator(seed)
