"""The edge: every kind of bad or odd input has one decided behaviour."""

import hashlib
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mecold import Catalog, DataWarning, InvalidDataError, TextTemplate, UnknownItemError
from mecold.data.interactions import Interactions

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
    with pytest.raises(InvalidDataError, match=r"must end in \.parquet or \.csv"):
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
