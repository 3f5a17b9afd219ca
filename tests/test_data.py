"""The edge: every kind of bad or odd input has one decided behaviour."""

import hashlib
import warnings
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold import Catalog, DataWarning, Interaction, InvalidDataError, TextTemplate, UnknownItemError
from mecold.data.delimited import holds_words, id_from_text, number_from_text
from mecold.data.frames import INTERACTION_NAMES, as_said, read_frame
from mecold.data.history import read_history
from mecold.data.interactions import Interactions
from mecold.rules import leaving

ITEMS = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["one", "two", "three"]})


def read_log(rows, columns=("user_id", "item_id", "timestamp"), catalog=None, **settings):
    frame = pl.DataFrame(rows, schema=list(columns), orient="row")
    return Interactions.read(frame, catalog or Catalog.read(ITEMS), **settings)


def as_lists(log, catalog):
    ids = catalog.ids.to_list()
    return {
        user: [ids[row] for row in log.items[start:end]]
        for user, start, end in zip(log.users, log.offsets[:-1], log.offsets[1:], strict=True)
    }


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas", "arrow", "parquet", "csv"])
def test_every_kind_of_frame_gives_the_same_histories(kind, tmp_path):
    frame = pl.DataFrame({"user_id": [2, 1, 2], "item_id": ["b", "a", "a"], "timestamp": [5, 3, 1]})
    if kind in ("parquet", "csv"):
        source = tmp_path / f"log.{kind}"
        (frame.write_parquet if kind == "parquet" else frame.write_csv)(source)
    else:
        source = {"polars": frame, "lazy": frame.lazy(), "pandas": frame.to_pandas(), "arrow": frame.to_arrow()}[kind]
    catalog = Catalog.read(ITEMS)

    log = Interactions.read(source, catalog)

    assert as_lists(log, catalog) == {1: ["a"], 2: ["a", "b"]}
    assert log.users.dtype == pl.Int64


def test_columns_can_be_mapped_and_a_missing_one_is_named():
    frame = pl.DataFrame({"customer": ["u"], "sku": ["a"], "item_id": ["wrong"]})
    catalog = Catalog.read(ITEMS)
    log = Interactions.read(frame, catalog, columns={"user_id": "customer", "item_id": "sku"})
    assert as_lists(log, catalog) == {"u": ["a"]}
    with pytest.raises(InvalidDataError, match=r"'user_id'.*'customer', 'sku'"):
        Interactions.read(frame, catalog)
    with pytest.raises(InvalidDataError, match="no column 'buyer'"):
        Interactions.read(frame, catalog, columns={"user_id": "buyer"})


def test_time_orders_ties_keep_the_source_order_and_the_first_of_a_pair_counts():
    catalog = Catalog.read(ITEMS)
    with pytest.warns(DataWarning, match="1 repeats"):
        log = read_log([("u", "c", 2), ("u", "a", 1), ("u", "b", 2), ("u", "a", 9)], catalog=catalog)
    assert as_lists(log, catalog) == {"u": ["a", "c", "b"]}


def test_without_time_the_order_is_the_fixed_shuffle():
    catalog = Catalog.read(ITEMS)
    log = read_log([("u", i) for i in "abc"], ("user_id", "item_id"), catalog)
    expected = sorted("abc", key=lambda item: hashlib.sha256(f"u:{item}".encode()).hexdigest())
    assert as_lists(log, catalog) == {"u": expected}
    assert log.times is None


def test_position_orders_where_there_is_no_timestamp():
    catalog = Catalog.read(ITEMS)
    frame = pl.DataFrame({"user_id": ["u"] * 3, "item_id": list("abc"), "timestamp": [None] * 3, "position": [3, 1, 2]})
    assert as_lists(Interactions.read(frame, catalog), catalog) == {"u": ["b", "c", "a"]}


def test_unknown_items_are_an_error_or_a_counted_warning():
    rows = [("u", "a", 1), ("u", "x", 2), ("v", "x", 3), ("v", "y", 4)]
    with pytest.raises(UnknownItemError, match=r"3 of 4 interactions are of 2 items.*'x', 'y'.*on_unknown='drop'"):
        read_log(rows)
    with pytest.warns(DataWarning, match="3 interactions of 2 unknown items"):
        assert as_lists(read_log(rows, on_unknown="drop"), Catalog.read(ITEMS)) == {"u": ["a"], "v": []}
    with pytest.raises(UnknownItemError, match="No interaction"):
        read_log([("u", "x", 1)], on_unknown="drop")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user_id": ["u", None], "item_id": ["a", "b"]}, r"1 of 2 values of user_id.*rows 1"),
        ({"user_id": [1.0, float("nan")], "item_id": ["a", "b"]}, r"1 of 2 values of user_id"),
        ({"user_id": [1.5, 2.0], "item_id": ["a", "b"]}, "ids are strings or integers"),
        ({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, None]}, r"1 of 2 values of timestamp"),
        ({"user_id": ["u", "v"], "item_id": ["a", "b"], "rating": [1.0, float("inf")]}, r"1 of 2 values of rating"),
        ({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": ["x", "y"]}, "must be numeric"),
        ({"user_id": ["u", "v"], "item_id": ["a", "b"], "weight": [1.0, -1.0]}, r"1 of 2 weights are not positive"),
        ({"user_id": [2**63, 1], "item_id": ["a", "b"]}, "exceed 64 signed bits"),
        ({"user_id": [], "item_id": []}, "are empty"),
        ({"user_id": ["u"], "item_id": [1]}, "Cast one of them"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_counts(frame, message):
    schema = {"user_id": pl.UInt64} if frame["user_id"][:1] == [2**63] else None
    with pytest.raises(InvalidDataError, match=message):
        Interactions.read(pl.DataFrame(frame, schema_overrides=schema), Catalog.read(ITEMS))


def test_a_dictionary_or_a_strange_file_is_refused(tmp_path):
    with pytest.raises(InvalidDataError, match="a dict; pass a polars"):
        Catalog.read({"item_id": [1]})
    with pytest.raises(InvalidDataError, match=r"must end in \.parquet, \.arrow, \.csv"):
        Catalog.read(tmp_path / "x.json")
    with pytest.raises(InvalidDataError, match="There is no file"):
        Catalog.read(tmp_path / "x.csv")
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(InvalidDataError, match="Cannot read the items"):
        Catalog.read(tmp_path / "bad.parquet")


def test_duplicate_items_are_set_aside_or_refused():
    same = pl.DataFrame({"item_id": [1, 1, 2], "title": ["x", "x", "y"]})
    with pytest.warns(DataWarning, match="1 identical duplicate"):
        assert len(Catalog.read(same)) == 2
    with pytest.raises(InvalidDataError, match=r"1 item ids stand more than once with different texts: 1"):
        Catalog.read(pl.DataFrame({"item_id": [1, 1], "title": ["x", "z"]}))
    with pytest.raises(InvalidDataError, match="items are empty"):
        Catalog.read(ITEMS.clear())


def test_texts_are_cleaned_cut_and_counted():
    items = pl.DataFrame(
        {
            "item_id": [1, 2, 3, 4],
            "title": ["a\x00\x07 b\n\tc", "🙂 emoji", None, "x" * 10_000_000],
            "brand": ["B", "", " ", None],
        }
    )
    with pytest.warns(DataWarning, match=r"1 items had a text field cut.*1 items have no text"):
        catalog = Catalog.read(items)
    assert catalog.texts == ("a b c. B", "🙂 emoji", "", "x" * 300)


def test_the_text_columns_their_order_and_the_separator_are_settings():
    items = pl.DataFrame({"item_id": [1], "title": ["T"], "blurb": ["D"]})
    assert Catalog.read(items).texts == ("T",)
    assert Catalog.read(items, template=TextTemplate(("blurb", "title"), " | ")).texts == ("D | T",)
    assert Catalog.read(items.drop("title")).texts == ("D",)  # no usual column: every string column
    with pytest.raises(InvalidDataError, match="'nope'"):
        Catalog.read(items, template=TextTemplate(("nope",)))
    with pytest.raises(InvalidDataError, match="no text column"):
        Catalog.read(items.select("item_id"))


def test_a_column_of_mixed_python_objects_is_refused():
    with pytest.raises(InvalidDataError, match=r"(cannot be converted|strings or integers)"):
        Catalog.read(pd.DataFrame({"item_id": ["a", 1], "title": ["x", "y"]}))


def test_arrow_dictionaries_and_pandas_categories_are_strings():
    table = pa.table({"item_id": pa.array(["a", "b"]).dictionary_encode(), "title": ["x", "y"]})
    assert Catalog.read(table).ids.to_list() == ["a", "b"]
    frame = pd.DataFrame({"item_id": pd.Categorical(["a", "b"]), "title": ["x", "y"]})
    assert Catalog.read(frame).ids.to_list() == ["a", "b"]


IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20, unique=True),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, max_size=20, unique=True
    ),
)


@settings(max_examples=60, deadline=None)
@given(ids=IDS)
def test_ids_come_back_as_they_came(ids):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        catalog = Catalog.read(pl.DataFrame({"item_id": ids, "title": [f"t{i}" for i in range(len(ids))]}))
    rows = catalog.rows(ids, "the ids")
    assert catalog.ids.gather(rows).to_list() == ids
    assert catalog.find(pl.Series(ids), "ids").to_list() == rows.tolist()


def test_users_can_be_taken_out_of_a_log():
    catalog = Catalog.read(ITEMS)
    log = read_log([("u", "a", 1), ("u", "b", 2), ("v", "c", 1), ("w", "b", 1), ("w", "a", 2)], catalog=catalog)
    assert as_lists(log.take([2, 0]), catalog) == {"w": ["b", "a"], "u": ["a", "b"]}
    assert log.take([]).items.shape == (0,)
    assert np.array_equal(log.lengths, [2, 1, 2])


def test_csv_columns_are_typed_by_all_their_values(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title,price\n007,1984,1.5\n12,b,\n")
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n5,12,2024-03-02\n5,007,2024-01-01\n")
    catalog = Catalog.read(tmp_path / "items.csv")
    assert catalog.ids.to_list() == ["007", "12"]
    log = Interactions.read(tmp_path / "log.csv", catalog)
    assert as_lists(log, catalog) == {5: ["007", "12"]}


def test_odd_text_columns_become_text_or_a_clear_error():
    items = pl.DataFrame({"item_id": [1], "title": [["a", "b"]], "brand": [float("nan")], "category": [3]})
    assert Catalog.read(items).texts == ("a, b. 3",)
    kind = pl.DataFrame({"item_id": [1], "kind": pl.Series(["x"], dtype=pl.Categorical)})
    assert Catalog.read(kind).texts == ("x",)
    with pytest.raises(InvalidDataError, match="'title' holds Struct"):
        Catalog.read(pl.DataFrame({"item_id": [1], "title": [{"a": 1}]}))


def test_a_mapping_to_a_name_that_nobody_reads_is_refused(fitted, shop):
    log = shop.interactions.rename({"timestamp": "ts"})
    catalog = Catalog.read(shop.items)
    with pytest.raises(InvalidDataError, match=r"'time=ts': the interactions know no such name.*'timestamp'"):
        Interactions.read(log, catalog, columns={"time": "ts"})
    with pytest.raises(InvalidDataError, match=r"'titel=title': the items know no such name.*'item_id', 'title'"):
        Catalog.read(shop.items, columns={"titel": "title"})
    with pytest.raises(InvalidDataError, match="'when=ts'"):
        fitted.recommend_batch(log, columns={"when": "ts"})


@pytest.mark.parametrize("name", ["Timestamp", "ts", "event_time", "Date"])
def test_histories_that_are_shuffled_beside_a_column_of_times_are_told(shop, name):
    catalog = Catalog.read(shop.items)
    with pytest.warns(DataWarning, match=f"histories are shuffled; '{name}' looks like one"):
        found = Interactions.read(shop.interactions.rename({"timestamp": name}), catalog)
    assert found.order == "shuffle"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Interactions.read(shop.interactions.drop("timestamp"), catalog)


@pytest.mark.parametrize("exclude", [[1, 2], ["p1", 2], [True]])
def test_filters_of_another_type_are_an_error_at_every_door(fitted, shop, exclude):
    user = fitted.adapt_user(["p1"])
    doors = [
        lambda: fitted.recommend(user, exclude=exclude),
        lambda: fitted.recommend_batch(shop.interactions.head(5), exclude=exclude),
        lambda: fitted.similar_items("p1", exclude=exclude),
    ]
    for door in doors:
        with pytest.raises(InvalidDataError, match=r"`exclude` (has ids that are integers|must hold ids)"):
            door()
    assert len(fitted.recommend(user, exclude=["never seen", "p2"], k=3)) == 3  # of the right type: out already


@pytest.mark.parametrize(
    ("texts", "like", "expected"),
    [
        (["1", "-20", "0"], None, [1, -20, 0]),
        (["007", "12"], None, ["007", "12"]),
        (["-0", "1"], None, ["-0", "1"]),
        (["1234567890123456789"], None, ["1234567890123456789"]),
        (["9223372036854775807"], pl.Int64, [9223372036854775807]),
        (["9223372036854775808"], pl.Int64, ["9223372036854775808"]),
        (["007", "12"], pl.Int64, ["007", "12"]),
        (["12", "1.0"], pl.Int64, ["12", "1.0"]),
        (["1400000000"], pl.String, ["1400000000"]),
    ],
)
def test_ids_of_a_csv_become_integers_where_that_loses_nothing(texts, like, expected):
    assert id_from_text(pl.Series("id", texts), like).to_list() == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-01", 1704067200.0),
        ("2024-01-01 00:00:01 UTC", 1704067201.0),
        ("2024-01-01T00:00:01.5Z", 1704067201.5),
        ("2024-01-01 02:00+02:00", 1704067200.0),
        ("2023-12-31T19:30:00-0430", 1704067200.0),
        ("12.5", 12.5),
        ("1e3", 1000.0),
        ("007", 7.0),
    ],
)
def test_times_and_numbers_of_a_csv(text, seconds, tmp_path):
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp\nu,a,{text}\n")
    assert Interactions.read(tmp_path / "log.csv", Catalog.read(ITEMS)).times.tolist() == [seconds]


@pytest.mark.parametrize(
    "text", ["0000-00-00", "2024-02-30", "2024-01-01 24:00:00", "2024-01-01 - 2024-02-01", "e5", "NA"]
)
def test_what_only_looks_like_a_time_stays_text_and_is_named_where_it_is_needed(text, tmp_path):
    assert number_from_text(pl.Series(["2024-01-01", text])).dtype == pl.String
    (tmp_path / "items.csv").write_text(f"item_id,title,created_at\na,{text} Morning show,{text}\n")
    assert Catalog.read(tmp_path / "items.csv").texts == (f"{text} Morning show",)
    (tmp_path / "log.csv").write_text(f"user_id,item_id,timestamp,created_at\nu,a,2024-01-01,x\nu,a,{text},{text}\n")
    with pytest.raises(InvalidDataError, match="timestamp of the interactions holds String .*" + text):
        Interactions.read(tmp_path / "log.csv", Catalog.read(ITEMS))


def test_digits_of_a_csv_meet_a_catalogue_of_either_kind(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\n5,12\n")
    for ids in (["12", "B0"], [12, 13]):
        catalog = Catalog.read(pl.DataFrame({"item_id": ids, "title": ["x", "y"]}))
        assert as_lists(Interactions.read(tmp_path / "log.csv", catalog), catalog) == {5: [ids[0]]}
    (tmp_path / "log.csv").write_text("user_id,item_id\n5,12\n5,012\n")
    with pytest.raises(InvalidDataError, match=r"'012' is none.*--type item_id=text"):
        Interactions.read(tmp_path / "log.csv", catalog)


def test_a_csv_keeps_the_text_of_its_columns_and_describes_items_by_words(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\n1,7.50\n2,1e3\n")
    assert Catalog.read(tmp_path / "items.csv").texts == ("7.50", "1e3")
    (tmp_path / "items.csv").write_text("item_id,blurb,price,since\n1,red,1.5,2024-01-01\n2,,2,2024-01-02\n")
    with pytest.warns(DataWarning, match="1 items have no text"):
        catalog = Catalog.read(tmp_path / "items.csv")
    assert catalog.texts == ("red", "")
    assert "left aside: 'price', 'since'" in catalog.notes[-1]
    assert not holds_words(pl.Series(["1", "2024-01-01 10:00"]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_encodings_that_leave_no_doubt(separator, encoding, tmp_path):
    (tmp_path / "items.csv").write_bytes(
        f'item_id{separator}title\na{separator}"caf\u00e9, {separator} x"\n'.encode(encoding)
    )
    found = Catalog.read(tmp_path / "items.csv", template=TextTemplate(separator="|"))
    assert found.ids.to_list() == ["a"]
    assert found.texts[0].startswith("caf\u00e9, ")


def test_a_csv_that_cannot_be_read_names_the_remedy(tmp_path):
    path = tmp_path / "items.csv"
    for content, message in (
        ("item_id,title\na,caf\u00e9\n".encode("latin-1"), "not UTF-8.*iconv"),
        (b'item_id,title\na,b\nb,"x\n', "quotes"),
        (b"", "empty"),
        (b"item_id;title, long\na;b,c\n", "Save the csv with commas"),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidDataError, match=message):
            Catalog.read(path)


def test_a_type_that_is_said_holds_or_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\n5,012\n")
    said = {"user_id": pl.String, "item_id": pl.Int64}
    frame = read_frame(tmp_path / "log.csv", "interactions", names=INTERACTION_NAMES, ids=said)
    assert frame["user_id"].to_list() == ["5"]
    with pytest.raises(InvalidDataError, match=r"item_id of the log is to be integer: '012' is none"):
        as_said(frame, said, "log")
    assert as_said(pl.DataFrame({"item_id": [1, 2]}), {"item_id": pl.String}, "log")["item_id"].to_list() == ["1", "2"]


def test_a_mapping_to_no_canonical_name_is_an_error():
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "ts": [1]})
    with pytest.raises(InvalidDataError, match=r"time=ts.*'user_id', 'item_id', 'timestamp'"):
        Interactions.read(frame, Catalog.read(ITEMS), columns={"time": "ts"})
    with pytest.raises(InvalidDataError, match=r"name=ts.*|two names"):
        Interactions.read(frame, Catalog.read(ITEMS), columns={"user_id": "ts", "item_id": "ts"})
    with pytest.raises(InvalidDataError, match=r"headline=title.*'item_id', 'title'"):
        Catalog.read(ITEMS, columns={"headline": "title"})
    assert Catalog.read(ITEMS, template=TextTemplate(("headline",)), columns={"headline": "title"}).texts[0] == "one"


def test_a_log_tells_which_columns_it_reads():
    frame = pl.DataFrame(
        {"user_id": ["u"], "item_id": ["a"], "timestamp": [datetime(2024, 1, 1)], "position": [1], "x": [0]}
    )
    assert Interactions.read(frame, Catalog.read(ITEMS)).notes == (
        "Interactions: read user_id (text), item_id (text), timestamp (times); left aside: 'position', 'x'.",
    )
    shuffled = Interactions.read(frame.select("user_id", "item_id", "x"), Catalog.read(ITEMS)).notes[-1]
    assert "left aside: 'x'. No timestamp or position" in shuffled


def test_empty_ids_are_missing_and_odd_users_are_told():
    with pytest.raises(InvalidDataError, match=r"1 of 2 values of user_id.*empty.*rows 1"):
        read_log([("u", "a", 1), ("", "b", 2)])
    with pytest.raises(InvalidDataError, match="item_id of the items are empty"):
        Catalog.read(pl.DataFrame({"item_id": ["a", ""], "title": ["x", "y"]}))
    with pytest.warns(DataWarning, match="2 rows are of the user 'nan'"):
        read_log([("nan", "a", 1), ("nan", "b", 2), ("u", "a", 1)])
    many = pl.DataFrame({"item_id": [f"i{n}" for n in range(150)], "title": ["x"] * 150})
    rows = [("guest", f"i{n}", n) for n in range(150)] + [(f"u{n}", "i0", n) for n in range(30)]
    catalog = Catalog.read(many)
    assert "One user has 83% of the log (150 of 180 rows)" in read_log(rows, catalog=catalog).notes[-1]
    assert "guest" not in str(read_log(rows[:150] + rows[150:160], catalog=catalog).notes)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (None, "exclude=None is no list"), ("a", "one text"), (5, "exclude=5"), ({"item_id": "a"}, "a dict"),
        (pd.DataFrame({"item_id": ["a"]}), "a DataFrame"), (pl.DataFrame({"item_id": ["a"]}), "a DataFrame"),
        ([1, 2], "integers, such as 1"), (np.array([1]), "integers, such as 1"), (["a", 1], "mixed"), ([["a"]], "list"),
        ([None], "NoneType"), ([1.0], "float"), ([True], "bool"), ([{"item_id": "a"}], "dict"),
    ],
)  # fmt: skip
def test_a_filter_of_another_kind_is_refused(ids, message):
    with pytest.raises(InvalidDataError, match=message):
        leaving(ids, Catalog.read(ITEMS))


def test_a_filter_that_matches_nothing_is_told():
    catalog = Catalog.read(ITEMS)
    for ids in (
        pl.Series(["a", "zz"]),
        pd.Series(["a", "zz"]),
        np.array(["a", "zz"]),
        {"a": 1}.keys() | {"zz"},
        iter(["a", "zz"]),
    ):
        assert set(leaving(ids, catalog)) == {"a", "zz"}
    assert leaving([], catalog) == []
    with pytest.warns(DataWarning, match="None of the 2 ids in `exclude`"):
        assert leaving(["y", "zz"], catalog) == ["y", "zz"]


@pytest.mark.parametrize(
    "time",
    [
        datetime(2024, 1, 1), date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), np.datetime64("2024-01-01"),
        datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), pd.Timestamp("2024-01-01"),
        pd.Timestamp("2024-01-01").to_datetime64(),
    ],
)  # fmt: skip
def test_a_datetime_is_the_same_time_in_a_list_and_in_a_frame(time):
    catalog = Catalog.read(ITEMS)
    found, *_ = read_history([Interaction("a")._replace(time=time)], catalog, "raise")
    assert found.times.tolist() == [[1704067200.0]]
    assert read_log([("u", "a", datetime(2024, 1, 1))], catalog=catalog).times.tolist() == [1704067200.0]


@pytest.mark.parametrize(
    "row",
    [
        {"item_id": "a", "rating": 5}, ["a", "b"], ("a", 1.0), None, 1.5, True, "", 7, Interaction("a")._replace(time="2024"),
        Interaction("a")._replace(time=pd.NaT), Interaction("a")._replace(label="like"),
        Interaction("a")._replace(weight=None), Interaction("a")._replace(item=["a"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("on_unknown", ["raise", "drop"])
def test_the_edge_of_one_user_is_as_strict_as_that_of_a_frame(row, on_unknown):
    with pytest.raises(InvalidDataError):
        read_history(["b", row], Catalog.read(ITEMS), on_unknown)


@pytest.mark.parametrize("source", [None, 5, {"item_id": "a"}, ITEMS, ITEMS.to_pandas()])
def test_what_is_no_history_is_refused(source):
    with pytest.raises(InvalidDataError, match="pass a list of item ids"):
        read_history(source, Catalog.read(ITEMS), "raise")


def test_a_column_that_stands_twice_is_refused():
    twice = pd.DataFrame([["u", "a", "b"]], columns=["user_id", "item_id", "item_id"])
    with pytest.raises(InvalidDataError, match="stand twice"):
        Interactions.read(twice, Catalog.read(ITEMS))
