"""Tables from files: each kind that people have is read as they expect, or refused in one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gapbench.datasets.table_file import TableError, encode, load, strangers

N = 40
RANDOM = np.random.default_rng(0)
A, B = RANDOM.normal(size=N).round(3), RANDOM.normal(size=N).round(3)
Y = (A - B).round(3)


def written(path: Path, columns: dict[str, list[object]], sep: str = ",", **how: str) -> Path:
    """A CSV of these columns, as its words."""
    lines = [sep.join(columns), *(sep.join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    file = path / "t.csv"
    file.write_text(how.get("before", "") + "\n".join(lines) + "\n", encoding=how.get("encoding", "utf-8"))
    return file


def plain(**more: list[object]) -> dict[str, list[object]]:
    return {"a": list(A), "b": list(B), **more, "y": list(Y)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_a_plain_table(tmp_path: Path, sep: str, encoding: str) -> None:
    """With any separator, with a byte order mark, in an old encoding. Seen to catch: the mark in the first name."""
    file = written(tmp_path, {"größe": list(A), "b": list(B), "y": list(Y)}, sep, encoding=encoding)
    table = load(file, "y")
    assert table.names == ("größe", "b") and table.notes == ()
    np.testing.assert_array_equal(table.x, np.stack([A, B], 1))
    np.testing.assert_array_equal(table.y, Y)


def test_decimal_commas(tmp_path: Path) -> None:
    """1.234,5 is 1234.5 where the separator is another. Seen to catch: words, a factor of a thousand."""
    commas = [f"{value:,.3f}".replace(",", "_").replace(".", ",").replace("_", ".") for value in 2000 * A]
    table = load(written(tmp_path, plain(c=commas), ";"), "y")
    np.testing.assert_allclose(table.x[:, 2], (2000 * A).round(3))
    assert table.notes == ("numbers have decimal commas",)


def test_the_columns_that_people_have(tmp_path: Path) -> None:
    """Quoted line breaks, a column called index, dates, booleans, categories, an id, row numbers, a constant. Seen to
    catch: the first column as an index, the category "NA" of a table of countries, dates in nanoseconds."""
    days = [str(pd.Timestamp("2020-03-01").date() + pd.Timedelta(days=int(7 * i))) for i in RANDOM.permutation(N)]
    file = written(
        tmp_path,
        plain(
            index=list(RANDOM.permutation(1000)[:N]),
            day=days,
            new=["True", "false"] * (N // 2),
            town=['"Sankt ""B""\nPölten"', '"Linz, Donau"'] * (N // 2),
            id=[f"k{i}x" for i in range(N)],
            row=list(range(5, 5 + N)),
            same=["x"] * N,
        ),
    )
    table = load(file, "y")
    towns = ["town = Linz, Donau", 'town = Sankt "B"\nPölten']
    assert list(table.names) == ["a", "b", "index", "day", "new", *towns]
    assert table.x[:, 3].min() == 0 and table.x[:, 3].max() == 7 * (N - 1)
    assert list(table.x[:2, 4]) == [1, 0] and list(table.x[:2, 5]) == [0, 1]
    told = "; ".join(table.notes)
    for words in (
        "day: dates",
        "town: 2 categories",
        "id: another word in every row",
        "row: row numbers",
        "same: const",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("words", "sep", "numbers"),
    [
        (['"1,341"', "547", '"12,345.5"'], ",", [1341, 547, 12345.5]),  # thousands
        (["1.200", "0,1", "1.234,5"], ";", [1200, 0.1, 1234.5]),  # one column with a comma decides for all
        (["1.200", "2.5", "3"], ";", [1.2, 2.5, 3]),
    ],
)
def test_one_style_of_numbers_a_file(tmp_path: Path, words: list[str], sep: str, numbers: list[float]) -> None:
    """Seen to catch: a price of 1,341 read as 1.341, a column read otherwise than its neighbour, new rows read
    otherwise than the table."""
    column = [words[i % 3] for i in range(N)]
    table = load(written(tmp_path, {"c": list(column), "a": [i % 7 for i in range(N)], "y": list(range(N))}, sep), "y")
    np.testing.assert_allclose(table.x[:3, 0], numbers)
    new = pd.DataFrame({"c": [words[0].strip('"')], "a": ["3"]})
    np.testing.assert_allclose(encode(table, new), [[numbers[0], 3]])


@pytest.mark.parametrize(
    "content",
    ["sep=;\n{0}", "\n\n{0}", "\ufeff{0}"],
)
def test_what_spreadsheets_write(tmp_path: Path, content: str) -> None:
    """A line with the separator, blank first lines, UTF-16. Seen to catch: "sep=" as the name of a column."""
    body = "a;b;y\n" + "\n".join(f"{a};{b};{y}" for a, b, y in zip(A, B, Y, strict=True))
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / f"{encoding}.csv").write_text(content.format(body), encoding=encoding)
        np.testing.assert_array_equal(load(tmp_path / f"{encoding}.csv", "y").x[:, 0], A)


@pytest.mark.parametrize("word", ["{}%", "${}", "{}/12/2020", "−{}", "{} 234"])
def test_numbers_in_other_clothes_are_refused(tmp_path: Path, word: str) -> None:
    """Seen to catch: a column of prices left out as one of words, or a feature for each price."""
    file = written(tmp_path, plain(c=[word.format(i + 1) for i in range(N)]))
    with pytest.raises(TableError, match=r"c: its values are .*: expected numbers such as 1234\.5"):
        load(file, "y")
    file = written(tmp_path, plain(c=[word.format(1 + i % 3) for i in range(N)]))
    with pytest.raises(TableError, match=r"c: its values are .*: expected numbers such as 1234\.5"):
        load(file, "y")


def test_one_bad_value_is_named(tmp_path: Path) -> None:
    """Seen to catch: good values shown for the bad one, the column left out."""
    a = list(map(str, A))
    a[7] = "unknown"
    with pytest.raises(TableError, match=r"a: its values are 'unknown', …: expected numbers"):
        load(written(tmp_path, {"a": a, "b": list(B), "y": list(Y)}), "y")


def test_dates_with_points(tmp_path: Path) -> None:
    """31.12.2020 has its day first. Seen to catch: the month first."""
    days = [f"{1 + i % 28}.0{1 + i // 28}.2020" for i in range(N)]
    assert load(written(tmp_path, plain(day=days), ";"), "y").x[:3, 2].tolist() == [0, 1, 2]


def test_a_count_of_years_is_kept(tmp_path: Path) -> None:
    """Only a column that is called so counts rows. Seen to catch: years left out."""
    table = load(written(tmp_path, plain(year=list(range(1990, 1990 + N)), id=list(range(N)))), "y")
    assert table.names == ("a", "b", "year")
    with pytest.raises(TableError, match="a is named by two options"):
        load(written(tmp_path, plain()), "y", drop=["a"], group="a")


def test_parquet(tmp_path: Path) -> None:
    """Types as they are stored, and an index that is no column. Seen to catch: the index as a feature."""
    frame = pd.DataFrame({"a": A, "kind": pd.Categorical(["u", "v"] * (N // 2)), "y": Y}, index=np.arange(N) * 7)
    frame["when"] = pd.Timestamp("2021-01-01", tz="UTC") + pd.to_timedelta(RANDOM.permutation(N), unit="D")
    frame.loc[frame.index[3], "a"] = np.inf
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"missing values in a \(1\)"):
        load(tmp_path / "t.parquet", "y")
    frame.loc[frame.index[3], "a"] = 0.0
    frame.to_parquet(tmp_path / "t.parquet")
    table = load(tmp_path / "t.parquet", "y")
    assert table.names == ("a", "kind = u", "kind = v", "when")
    assert table.x[:, 3].max() == N - 1


def test_missing_values(tmp_path: Path) -> None:
    """Refused with their numbers, or kept as nan; a missing category is one of its own; rows without a target go. Seen
    to catch: rows dropped in silence, a 0 for what is missing."""
    a, y = list(map(str, A)), list(map(str, Y))
    a[3], a[7], y[9] = "", "NA", "?"
    file = written(tmp_path, {"a": a, "b": list(B), "k": ["u", "v", "", "u"] * (N // 4), "y": y})
    with pytest.raises(TableError, match="y: 1 values are missing; --impute median leaves these rows out"):
        load(file, "y")
    y[9] = "0"
    file = written(tmp_path, {"a": a, "b": list(B), "k": ["u", "v", "", "u"] * (N // 4), "y": y})
    with pytest.raises(TableError, match=r"missing values in a \(2\): --impute median fills them, --drop"):
        load(file, "y")
    table = load(file, "y", impute=True)
    assert np.isnan(table.x[[3, 7], 0]).all() and np.isnan(table.x).sum() == 2
    assert table.names[2:] == ("k = (missing)", "k = u", "k = v") and table.x[2, 2] == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "the file is empty"),
        ("a,y\n1,2\n", "1 rows: expected 20 at least"),
        ("y\n" + "\n".join(map(str, Y)), "the only column is 'y'"),
        ("a,y\n" + "\n".join(f"{a},red{a}" for a in A), "--target y: its values are 'red0.126'.*: expected numbers"),
        ("a,y\n" + "\n".join(f"{a},7" for a in A), r"--target y: all its values are 7\.0"),
        (
            "a,Y\n" + "\n".join(f"{a},{b}" for a, b in zip(A, B, strict=True)),
            "--target y: no such column: did you mean",
        ),
        ("1.5,2.5\n" + "\n".join(f"{a},{b}" for a, b in zip(A, B, strict=True)), "the first line is numbers"),
        ("a,a,y\n" + "\n".join(f"{a},{a},{a}" for a in A), "two columns are called 'a': rename one"),
        ("a,y\n" + "\n".join(f"3,{a}" for a in A), "no column is left to predict 'y' from: a: constant"),
        ("a,y\n" + "\n".join(f"{a},{a},9" for a in A), "cannot be read as a table"),
        ("a,y\n" + "\n".join(f"{a},{a}" for a in A) + "\n1,2,3", "cannot be read as a table"),
        ("PAR1\0\0", r"expected CSV, or Parquet in a file called \.parquet"),
        ('a,y\n1,"2\n', "cannot be read as a table|1 rows"),
    ],
)
def test_what_cannot_be_learned_from(tmp_path: Path, content: str, why: str) -> None:
    """In one line. Seen to catch: pandas' own errors, a table of one constant, names made unique in silence."""
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    with pytest.raises(TableError, match=why) as caught:
        load(tmp_path / "t.csv", "y")
    assert "\n" not in str(caught.value)


def test_too_many_words(tmp_path: Path) -> None:
    """Seen to catch: a feature for each of them."""
    words = [f"w{i // 2}" for i in range(2 * N)] * 2
    file = tmp_path / "t.csv"
    y = np.resize(Y, len(words))
    file.write_text("a,word,y\n" + "\n".join(f"{i % 9},{w},{v}" for i, (w, v) in enumerate(zip(words, y, strict=True))))
    assert len(load(file, "y").names) == 41
    words = [f"w{i // 2}" for i in range(160)]
    file.write_text("a,word,y\n" + "\n".join(f"{i % 9},{w},{v}" for i, (w, v) in enumerate(zip(words, y, strict=True))))
    with pytest.raises(
        TableError, match=r"word: 80 different words, its values are 'w0', 'w1'.*leave it out by --drop"
    ):
        load(file, "y")
    assert load(file, "y", drop=["word"]).names == ("a",)


def test_groups_and_time(tmp_path: Path) -> None:
    """Rows in the order of time; neither is a feature. Seen to catch: the group as a feature, words sorted as time."""
    days = [f"2020-01-{1 + i:02d}" for i in RANDOM.permutation(30)] + [f"2019-12-{i:02d}" for i in range(10, 20)]
    file = written(tmp_path, plain(day=days, who=["u", "v", "w", "x"] * (N // 4)))
    table = load(file, "y", time="day", group="who")
    order = np.argsort(np.array(days), kind="stable")
    assert table.names == ("a", "b")
    np.testing.assert_array_equal(table.y, Y[order])
    np.testing.assert_array_equal(table.groups, pd.factorize(np.array(["u", "v", "w", "x"] * (N // 4))[order])[0])
    with pytest.raises(TableError, match="--time who: its values are 'u', 'v', 'w'"):
        load(file, "y", time="who")


def test_new_rows(tmp_path: Path) -> None:
    """They get the same features, in whatever order their columns come. Seen to catch: categories of the new rows,
    days since their own first one, a word that the table does not have taken for one that it has."""
    file = written(tmp_path, plain(day=[f"2020-01-{1 + i % 28:02d}" for i in range(N)], k=["u", "v"] * (N // 2)))
    table = load(file, "y")
    new = pd.DataFrame({"k": ["v", "v"], "day": ["2020-01-03", "2020-02-01"], "b": ["1", "2"], "a": ["", "4"]})
    np.testing.assert_array_equal(encode(table, new), [[np.nan, 1, 2, 0, 1], [4, 2, 31, 0, 1]])
    with pytest.raises(TableError, match="the column 'b' is missing"):
        encode(table, new.drop(columns="b"))
    yes = written(tmp_path, plain(k=["yes", "no", "maybe", "3A"] * (N // 4)))
    words = load(yes, "y")
    assert "k: yes is 1 and no is 0" in load(written(tmp_path, plain(k=["yes", "NO"] * (N // 2))), "y").notes
    assert not any("yes is 1" in note for note in words.notes)
    assert encode(words, pd.DataFrame({"a": ["1"], "b": ["2"], "k": ["no"]})).tolist() == [[1, 2, 0, 0, 1, 0]]
    np.testing.assert_array_equal(encode(table, new.assign(k=["z", "u"]))[:, 3:], [[0, 0], [1, 0]])
    rows, why = strangers(table, new.assign(k=["z", ""]))
    assert rows.all() and why == ["k = '(missing)'", "k = 'z'"] and not strangers(table, new)[0].any()
    with pytest.raises(TableError, match=r"a: its values are 'tall'.*expected numbers"):
        encode(table, new.assign(a="tall"))
