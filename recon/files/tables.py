"""Tables of numbers: text with any usual separator, or vectors of MATLAB files."""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from mrcore.errors import BadInputError, MissingExtraError
from recon.files.matlab import mat_arrays

Table = Mapping[str, NDArray[np.float64]]

_COMMENT = re.compile(r"(?:^|(?<=[\s,;]))(?:#|%|//)")
_SEPARATORS = (";", "\t", ",")  # a comma last: it may be a decimal one where another separates
_FAULTS = (
    *(OSError, ValueError, NotImplementedError, AttributeError, IndexError, KeyError, TypeError, RuntimeError),
    *(MatReadError, zlib.error),
)


def read_table(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the columns of a table of numbers by name.

    `.mat`: each numeric vector or number, of any version (7.3 needs h5py), also of structures. Else text: columns
    separated by commas, semicolons (numbers may have decimal commas then), tabs or spaces; comments after #, % or //;
    empty lines and separators at the end of lines are left out. Names are those of the first line, or of a comment just
    above the numbers; without any, one column is named as the file without its ending, several are named 0, 1, ...

    Raises:
        BadInputError: a file that is no such table.
        MissingExtraError: a MATLAB file of version 7.3 without h5py.
    """
    try:
        return _mat_table(path) if path.suffix.lower() == ".mat" else _text_table(path)
    except MissingExtraError:
        raise
    except _FAULTS as error:
        raise BadInputError(f"{path} cannot be read as a table of numbers: {error}") from error


def _mat_table(path: Path) -> dict[str, NDArray[np.float64]]:
    vectors = {
        name: values.reshape(-1).astype(np.float64)
        for name, values in mat_arrays(path).items()
        if np.isrealobj(values) and values.size and values.size == max(values.shape, default=1)
    }
    if not vectors:
        raise ValueError("it holds no vector of numbers")
    return vectors


def _text_table(path: Path) -> dict[str, NDArray[np.float64]]:
    lines = [(number, *_split_comment(line)) for number, line in enumerate(_lines(path), start=1)]
    full = [(number, text) for number, text, _ in lines if text.strip(" \t,;")]
    if not full:
        raise ValueError("it is empty")
    separator = next((mark for mark in _SEPARATORS if all(mark in text for _, text in full)), None)
    rows = [(number, _cells(text, separator)) for number, text in full]
    names = None if all(map(_is_number, rows[0][1])) else rows.pop(0)[1]
    if not rows:
        raise ValueError(f"each line below the names needs {len(names or ())} numbers, there is none")
    if names is None:
        above = [_cells(comment, separator) for number, text, comment in lines if number < rows[0][0] and not text]
        width = len(rows[0][1])
        commented = [cells for cells in above if len(cells) == width and not any(map(_is_number, cells))]
        names = commented[-1] if commented else [path.stem] if width == 1 else [str(i) for i in range(width)]
    return _columns(names, rows)


def _columns(names: list[str], rows: list[tuple[int, list[str]]]) -> dict[str, NDArray[np.float64]]:
    if len(set(names)) < len(names):
        raise ValueError(f"columns have the same name: {', '.join(names)}")
    for number, cells in rows:
        if len(cells) != len(names):
            raise ValueError(f"each line below the names needs {len(names)} numbers, line {number} has {len(cells)}")
        for name, cell in zip(names, cells, strict=True):
            if not _is_number(cell):
                raise ValueError(f"line {number}, column {name!r}: {cell!r} is no number")
    return {name: np.array([_number(cells[i]) for _, cells in rows]) for i, name in enumerate(names)}


def _lines(path: Path) -> list[str]:
    start = path.read_bytes()[:2]
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return path.read_text(encoding=encoding).splitlines()


def _split_comment(line: str) -> tuple[str, str]:
    """Return a line before the mark of a comment, and the comment."""
    mark = _COMMENT.search(line)
    return (line.strip(), "") if mark is None else (line[: mark.start()].strip(), line[mark.end() :].strip())


def _cells(text: str, separator: str | None) -> list[str]:
    """Return the cells of a line, without empty ones at its end."""
    if separator is None:
        return text.split()
    cells = [cell.strip() for cell in next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _number(cell: str) -> float:
    return float(cell.replace(",", ".", 1))
