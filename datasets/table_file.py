"""A table from a file: CSV in any of its dialects, or Parquet, as numbers that a network can learn from.

Whatever is decided about a column is a sentence in `Table.notes`.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "-", "#n/a"}  # words for a missing value, in lower case
YES, NO = {"true", "yes"}, {"false", "no"}
CATEGORIES = 50  # different words of a column that become a feature each
LEAST = 20  # rows
DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}.*)?")
GERMAN = re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}")  # day, month, year
COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?(e[+-]?\d+)?", re.IGNORECASE)  # 1.234,5
GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")  # 1,234.5
NUMERIC = re.compile(r"[-+−$€£]?\s?\d[\d\s.,/:'−-]*\s?[%€]?")  # what looks like a number or a date, and is none
INDEX = {"", "index", "id", "row", "nr", "no"}  # names of columns that count the rows

Floats = NDArray[np.float64]


class TableError(ValueError):
    """A file that is no table to learn from, in one line with what to do."""


@dataclass(frozen=True)
class Feature:
    """How a column becomes numbers. kind: "number"; "date": days since `since`; "category": one column of 0 and 1 for
    each of `words`."""

    column: str
    kind: str
    words: tuple[str, ...] = ()
    since: pd.Timestamp | None = None

    @property
    def names(self) -> list[str]:
        return [f"{self.column} = {word}" for word in self.words] if self.kind == "category" else [self.column]


@dataclass(frozen=True, eq=False)
class Table:
    """A table in numbers.

    names: of the D features. x: (N, D), nan where a number is missing. y: (N,). groups: the group of each row, (N,), or
    None. when: the time of each row, (N,), increasing, or None. features: how new rows become numbers. comma: whether
    words have decimal commas. notes: sentences on the columns.
    """

    target: str
    names: tuple[str, ...]
    x: Floats
    y: Floats
    groups: NDArray[np.int64] | None
    when: NDArray[np.generic] | None
    features: tuple[Feature, ...]
    comma: bool
    notes: tuple[str, ...]


def load(
    path: Path | str,
    target: str,
    drop: Sequence[str] = (),
    impute: bool = False,
    group: str = "",
    time: str = "",
) -> Table:
    """The table of a file.

    drop: columns to leave out. impute: keep rows with missing values. group: the column whose equal values belong
    together. time: the column that rows are sorted by; neither of the two is a feature. Raises TableError.
    """
    frame = read(Path(path))
    for option, names in (("--target", [target]), ("--drop", drop), ("--group", [group]), ("--time", [time])):
        for name in filter(None, names):
            _known(option, name, frame.columns)
    named = [target, *drop, *filter(None, (group, time))]
    if twice := [name for name in named if named.count(name) > 1]:
        raise TableError(f"{twice[0]} is named by two options: expected one of --target, --drop, --group and --time")
    comma = bool(frame.attrs.get("comma"))
    frame = frame.drop(columns=list(drop))
    if len(frame) < LEAST:
        raise TableError(f"{len(frame)} rows: expected {LEAST} at least, to train on and to hold out")
    if len(frame.columns) - len({target, group, time} & set(frame.columns)) < 1:
        raise TableError(f"the only column is {target!r}: expected others to predict it from")
    columns = {str(name): typed(frame[name], comma) for name in frame.columns}
    notes = ["numbers have decimal commas"] if comma else []
    notes += [f"{name}: yes is 1 and no is 0" for name in frame.columns if name != target and _yes_or_no(frame[name])]
    y = columns.pop(target)
    if y.dtype.kind not in "fb":
        raise TableError(f"--target {target}: {_sample(y)}: expected numbers")
    y = y.astype(np.float64)
    if y.nunique() == 2:
        notes.append(f"{target}: it has two values; these methods predict numbers, not classes")
    if y.nunique() < 2:
        raise TableError(
            f"--target {target}: all its values are {y.dropna().iloc[0] if y.notna().any() else 'missing'}"
        )
    keep = y.notna()
    if not keep.all() and not impute:
        raise TableError(f"{target}: {int((~keep).sum())} values are missing; --impute median leaves these rows out")
    if not keep.all():
        notes.append(f"{target}: {int((~keep).sum())} rows without a value are left out")
    order, times = np.flatnonzero(keep), None
    if time:
        when = columns.pop(time)
        if when.dtype.kind not in "fbM" or when.isna().any():
            raise TableError(
                f"--time {time}: {_sample(when)}: expected numbers or dates such as 2020-12-31 in every row"
            )
        order = order[np.argsort(when.to_numpy()[order], kind="stable")]
        times = when.to_numpy()[order]
    groups = None
    if group:
        groups = pd.factorize(columns.pop(group).astype(str).iloc[order])[0].astype(np.int64)
        if groups.max() < 2:
            raise TableError(f"--group {group}: {groups.max() + 1} groups, expected three at least")
    features = _features({name: one.iloc[order] for name, one in columns.items()}, notes, comma)
    if not features:
        raise TableError(f"no column is left to predict {target!r} from: {'; '.join(notes)}")
    counts = {
        one.column: int(columns[one.column].iloc[order].isna().sum()) for one in features if one.kind != "category"
    }
    missing = {name: count for name, count in counts.items() if count}
    if missing and not impute:
        told = ", ".join(f"{name} ({count})" for name, count in missing.items())
        raise TableError(f"missing values in {told}: --impute median fills them, --drop leaves columns out")
    for name, count in missing.items():
        notes.append(f"{name}: {count} missing values, filled by the median of the training rows")
    x = np.concatenate([_numbers(one, columns[one.column].iloc[order]) for one in features], 1)
    names = tuple(name for one in features for name in one.names)
    y_sorted = np.asarray(y, np.float64)[order]
    return Table(target, names, x, y_sorted, groups, times, tuple(features), comma, tuple(notes))


def encode(table: Table, frame: pd.DataFrame) -> Floats:
    """The features of new rows, (M, D), nan where a number is missing. A word that the table does not have is none of
    its categories: see `strangers`. Raises TableError for a column that is not there, and for words where numbers were.
    """
    own = frame.attrs.get("comma")
    comma = table.comma if own is None else bool(own)
    parts = []
    for one in table.features:
        if one.column not in frame.columns:
            raise TableError(f"the column {one.column!r} is missing: the table that was learned from has it")
        if one.kind == "category":
            column = pd.Series([_word(value) for value in frame[one.column]], dtype=object)
        else:
            column = typed(frame[one.column], comma)
            wanted = "M" if one.kind == "date" else "fb"
            if column.notna().any() and column.dtype.kind not in wanted:
                words = "dates" if one.kind == "date" else "numbers"
                raise TableError(
                    f"{one.column}: {_sample(column)}: expected {words}, as in the table that was learned from"
                )
        parts.append(_numbers(one, column))
    return np.concatenate(parts, 1)


def strangers(table: Table, frame: pd.DataFrame) -> tuple[NDArray[np.bool_], list[str]]:
    """The new rows of which nothing was learned, (M,), and why: the words that the table does not have."""
    rows, told = np.zeros(len(frame), bool), []
    for one in table.features:
        if one.kind == "category":
            words = np.array(_words(pd.Series([_word(value) for value in frame[one.column]], dtype=object)))
            new = ~np.isin(words, one.words)
            rows |= new
            told += [f"{one.column} = {str(word)!r}" for word in sorted(set(words[new]))]
    return rows, told


# Files ----------------------------------------------------------------------------------------------------------------


def read(path: Path) -> pd.DataFrame:
    """The columns of a file, those of a CSV as words; a file that is not changed is read once. Raises TableError."""
    try:
        now = path.stat()
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from error
    return _read(path, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, size: int) -> pd.DataFrame:
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path).reset_index(drop=True)
        else:
            frame = _csv(path.read_bytes())
        frame.columns = pd.Index([str(name).strip() for name in frame.columns])
        _distinct(frame.columns)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error
    except TableError as error:
        raise TableError(f"{path}: {error}") from error
    except Exception as error:  # pyarrow and pandas have many kinds
        raise TableError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}") from error
    return frame


def _csv(data: bytes) -> pd.DataFrame:
    if not data.strip():
        raise TableError("the file is empty")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # "Unicode text" of Excel
        data = data.decode("utf-16").encode()
    if data[:4] == b"PAR1" or b"\0" in data[:4096]:
        raise TableError("not a text file: expected CSV, or Parquet in a file called .parquet")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    text = text.lstrip("\r\n")
    said = re.match(r"sep=(.)\r?\n", text)  # a line that Excel writes and reads
    text = text[said.end() :] if said else text
    separator = said[1] if said else _separator(text)
    header = [name.strip() for name in next(csv.reader(io.StringIO(text), delimiter=separator))]
    if header and all(map(_readable, header)):
        raise TableError(f"the first line is numbers ({', '.join(header[:3])}): expected the names of the columns")
    _distinct(header)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # lines with more fields than the header
        # Not its first column as the index, not its words for missing values, not its guesses of types.
        frame: pd.DataFrame = pd.read_csv(
            io.StringIO(text), sep=separator, index_col=False, dtype=str, keep_default_na=False, skipinitialspace=True
        )
    frame.attrs["comma"] = False if separator == "," else _has_commas(frame)
    return frame


def _distinct(names: Iterable[str]) -> None:
    counts = Counter(names)
    if twice := [name for name, count in counts.items() if name and count > 1]:
        raise TableError(f"two columns are called {twice[0]!r}: rename one")


def _separator(text: str) -> str:
    """The character between columns: of ; tab | and , the one that cuts the header into most names."""
    lines = {one: next(csv.reader(io.StringIO(text), delimiter=one), []) for one in (";", "\t", "|", ",")}
    return max(lines, key=lambda one: len(lines[one]))


def _has_commas(frame: pd.DataFrame) -> bool | None:
    """True if numbers have decimal commas, which one column that cannot be read otherwise shows for all; False if they
    have points; None if no column shows either."""
    found = None
    for name in frame.columns:
        there = [word for word in map(_word, frame[name]) if word]
        if any("," in word for word in there) and all(COMMA.fullmatch(word) for word in there):
            return True
        if any("." in word for word in there) and all(map(_readable, there)):
            found = False
    return found


# Columns --------------------------------------------------------------------------------------------------------------


def typed(column: pd.Series, comma: bool = False) -> pd.Series:
    """A column as numbers (float64, nan for missing), dates, booleans as 0 and 1, or words (None for missing). comma:
    whether words have decimal commas."""
    if column.dtype.kind == "M":
        return column.dt.tz_localize(None) if column.dt.tz is not None else column
    if column.dtype.kind in "fiub":
        numbers = column.astype(np.float64)
        return numbers.where(np.isfinite(numbers))
    words = pd.Series([_word(value) for value in column], index=column.index, dtype=object)
    there = words.dropna()
    if there.empty:
        return words.astype(np.float64)
    if _yes_or_no(there):
        return words.map(lambda word: None if word is None else float(word.lower() in YES)).astype(np.float64)
    try:
        numbers = words.map(lambda word: np.nan if word is None else _read_number(word, comma)).astype(np.float64)
        return numbers.where(np.isfinite(numbers))
    except ValueError:
        pass
    if all(GERMAN.fullmatch(word) for word in there):
        dates = pd.to_datetime(words, errors="coerce", format="%d.%m.%Y")
        if dates.notna().sum() == len(there):
            return dates
    if all(DATE.fullmatch(word) for word in there):
        dates = pd.to_datetime(words, errors="coerce", format="ISO8601", utc=True).dt.tz_localize(None)
        if dates.notna().sum() == len(there):
            return dates
    return words


def _yes_or_no(column: pd.Series) -> bool:
    """True for a column of booleans, or of words such as yes and false."""
    if column.dtype.kind in "fiubM":
        return column.dtype.kind == "b"
    there = {str(value).strip().lower() for value in column.unique()} - MISSING
    return bool(there) and there <= YES | NO


def _readable(word: str | None, comma: bool = False) -> bool:
    """True for a number, and for a value that is missing."""
    if word is None:
        return True
    try:
        _read_number(word, comma)
    except ValueError:
        return False
    return True


def _read_number(word: str, comma: bool) -> float:
    """The number that a word is: with a decimal comma 1.234,5, else 1,234.5. Raises ValueError."""
    if comma and COMMA.fullmatch(word):
        return float(word.replace(".", "").replace(",", "."))
    return float(word.replace(",", "") if GROUPED.fullmatch(word) and not comma else word)


def _word(value: object) -> str | None:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    word = str(value).strip()
    return None if word.lower() in MISSING else word


def _features(columns: dict[str, pd.Series], notes: list[str], comma: bool) -> list[Feature]:
    """The features of the columns; what is left out goes into the notes. Raises TableError."""
    found = []
    for name, column in columns.items():
        rows, values = len(column), column.nunique()
        if values == 0 or (values == 1 and not column.isna().any()):
            notes.append(f"{name}: constant, left out")
        elif column.dtype.kind == "M":
            found.append(Feature(name, "date", since=column.min()))
            notes.append(f"{name}: dates, as days since {column.min():%Y-%m-%d}")
        elif column.dtype.kind == "f":
            numbers = column.to_numpy()
            counts = values == rows and np.array_equal(numbers - numbers.min(), np.arange(rows))
            if counts and (name.lower() in INDEX or name.startswith("Unnamed: ")):
                notes.append(f"{name}: row numbers, left out")
            else:
                found.append(Feature(name, "number"))
        elif column.dropna().map(lambda word: _readable(word, comma) or bool(NUMERIC.fullmatch(word))).mean() > 0.5:
            strange = _sample(column[[not _readable(word, comma) for word in column]])
            raise TableError(
                f"{name}: {strange}: expected numbers such as 1234.5, or dates such as 2020-12-31, in every row; leave "
                "the column out by --drop if they are words"
            )
        elif values == rows:
            notes.append(f"{name}: another word in every row, left out")
        elif values > CATEGORIES:
            raise TableError(
                f"{name}: {values} different words, {_sample(column)}: expected {CATEGORIES} categories at most; leave "
                "it out by --drop, or write numbers with a decimal point and dates as 2020-12-31"
            )
        else:
            words = tuple(sorted(set(_words(column))))
            found.append(Feature(name, "category", words))
            none = "; a missing one is one of them" if column.isna().any() else ""
            notes.append(f"{name}: {len(words)} categories, a feature each{none}")
    return found


def _words(column: pd.Series) -> list[str]:
    """The words of a category; a missing one is a category of its own."""
    return ["(missing)" if value is None or value != value else str(value) for value in column]


def _numbers(one: Feature, column: pd.Series) -> Floats:
    """The column's features, (rows, 1) or one for each category."""
    if one.kind == "category":
        words = np.array(_words(column), dtype=object)
        return np.stack([(words == word).astype(np.float64) for word in one.words], 1)
    if one.kind == "date":
        since = np.datetime64(one.since) if one.since is not None else None
        return ((column.to_numpy("datetime64[ns]") - since) / np.timedelta64(1, "D"))[:, None]
    return np.asarray(column, np.float64)[:, None]


def _known(option: str, name: str, columns: pd.Index) -> None:
    if name not in columns:
        lower = {str(one).lower(): one for one in columns}
        near = difflib.get_close_matches(name.lower(), lower, 1, 0.5)
        hint = f"did you mean {lower[near[0]]!r}" if near else f"expected one of {', '.join(map(str, columns[:20]))}"
        raise TableError(f"{option} {name}: no such column: {hint}")


def _sample(column: pd.Series) -> str:
    """A few of a column's values, in words."""
    there = [str(value) for value in column.dropna().unique()[:3]]
    return f"its values are {', '.join(map(repr, there))}, …" if there else "it has no values"
