"""Tables of every format are read, and written with columns added, without losing anything."""

import csv
import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from phi3batch.mistakes import Mistake
from phi3batch.tables import Format, Table, format_of, open_table

# What UTF-8 can hold, and no line break that a reader of CSV takes for another.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)
NAMES = st.lists(TEXTS, min_size=1, max_size=4, unique=True)


@st.composite
def text_tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = draw(NAMES)
    row = st.lists(TEXTS, min_size=len(names), max_size=len(names))
    return names, draw(st.lists(row, max_size=6))


def written(path: Path, names: list[str], rows: list[list[str]], separator: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    return path


def table_of(path: Path, content: bytes | str) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(path)


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
@given(table=text_tables())
def test_texts_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    separator: str,
    table: tuple[list[str], list[list[str]]],
) -> None:
    names, rows = table
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    read = open_table(written(folder / f"a{suffix}", names, rows, separator))
    assert read.columns == names
    assert [list(row.values()) for row in read.rows()] == [
        [cell or None for cell in row] for row in rows
    ]
    target = folder / f"b{suffix}"
    assume("added" not in names)
    read.write(target, {"added": "text"}, [["x"]] * len(rows))
    again = open_table(target)
    assert list(again.rows()) == [row | {"added": "x"} for row in read.rows()]


@pytest.mark.parametrize(
    ("head", "columns"),
    [
        ("a,b;c\n", ["a", "b;c"]),
        ("a;b;c\n", ["a", "b", "c"]),
        ('"a,b";c|d;e\n', ["a,b", "c|d", "e"]),
        ("a\tb\n", ["a", "b"]),
        ('"a,b","c;d;e"\n', ["a,b", "c;d;e"]),
        ('"a\n,b";c\n', ["a\n,b", "c"]),
        ("alone\n", ["alone"]),
        ("\ufeffa,b\n", ["a", "b"]),
    ],
)
def test_the_separator_is_seen_in_the_first_line(
    tmp_path: Path, head: str, columns: list[str]
) -> None:
    assert table_of(tmp_path / "a.csv", head).columns == columns


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 cells where the first line names 2 columns"),
        ('a,b\n"1,2\n', "line 2"),
        (b"a,b\n1,\xe9\n", "not UTF-8"),
        ("", "empty"),
        ("a,a\n1,2\n", "2 columns are named 'a'"),
    ],
)
def test_what_is_no_table_is_told_with_its_place(
    tmp_path: Path, content: bytes | str, told: str
) -> None:
    with pytest.raises(Mistake, match=rf"a\.csv.*{told}"):
        list(table_of(tmp_path / "a.csv", content).rows())


def test_a_folder_or_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.csv", tmp_path / "none.jsonl", tmp_path / "none.pq"):
        with pytest.raises(Mistake, match=str(path)):
            list(open_table(path).rows())


def test_json_lines_are_rows_of_what_each_has(tmp_path: Path) -> None:
    table = table_of(tmp_path / "a.jsonl", '\ufeff{"a": 1}\n\n{"b": [null]}')
    assert table.columns == ["a"]
    assert list(table.rows()) == [{"a": 1}, {"b": [None]}]
    table.write(tmp_path / "b.jsonl", {"v": "vector"}, [[[0.5]], [None]])
    lines = (tmp_path / "b.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"a": 1, "v": [0.5]},
        {"b": [None], "v": None},
    ]


@pytest.mark.parametrize("line", ["[1]", "{"])
def test_a_line_that_is_no_object_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(Mistake, match=r"a\.jsonl, line 2"):
        list(table_of(tmp_path / "a.jsonl", f"{{}}\n{line}\n").rows())


def test_parquet_keeps_its_types_and_its_batches(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "id": list(range(2500)),
        "price": [Decimal("1.50")] * 2500,
        "day": [datetime.date(2026, 11, 25)] * 2500,
        "score": [float("nan")] * 2500,
        "tags": [["a", None]] * 2500,
        "raw": [b"\xff"] * 2500,
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=700)
    table = open_table(tmp_path / "a.parquet")
    first, *_ = rows = list(table.rows())
    assert len(rows) == 2500
    assert first == {
        "id": 0,
        "price": "1.50",
        "day": "2026-11-25",
        "score": None,
        "tags": ["a", None],
        "raw": "/w==",
    }
    values = [[str(row["id"]), [row["id"] / 3], {"n": row["id"]}] for row in rows]
    kinds = {"text": "text", "vector": "vector", "json": "json"}
    table.write(tmp_path / "b.parquet", kinds, values)  # type: ignore[arg-type]
    back = pq.read_table(tmp_path / "b.parquet")
    before = pq.read_table(tmp_path / "a.parquet")
    assert back.schema.names == [*columns, *kinds]
    names = [name for name in columns if name != "score"]  # no NaN equals another
    assert back.select(names).equals(before.select(names))
    assert back.schema.field("score").equals(before.schema.field("score"))
    assert back["text"].to_pylist() == [value[0] for value in values]
    assert back["vector"].to_pylist() == [value[1] for value in values]
    assert json.loads(back["json"][7].as_py()) == {"n": 7}


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"PAR1", "parquet"), (b' {"a": 1}', "jsonl"), (b"", "jsonl"), (b"a,b\n", "csv")],
)
def test_without_an_ending_the_content_tells(tmp_path: Path, content: bytes, found: Format) -> None:
    path = tmp_path / "stdin"
    path.write_bytes(content)
    assert format_of(path) == found
