"""Pulse sequences of fingerprints from tables (CSV, text, MATLAB), with the unit of every column said."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.signals.epg import SliceProfile
from mrcore.signals.mrf_sequence import MrfSequence

Table = Mapping[str, NDArray[np.float64]]

_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_ANGLES = {"deg": 1.0, "rad": 180 / np.pi}
_UNITS = _TIMES | _ANGLES
_SMALLEST_DEG = 3.2  # a train that never flips further was given in radians
_SHORTEST_S = 5e-4  # no repetition is as short: seconds were taken for milliseconds
_LONGEST_S = 20.0  # nor as long: milliseconds were taken for seconds


@dataclass(frozen=True)
class Column:
    """Column `name` of a table in `unit` (s, ms, us, deg, rad); its values are `offset` + `scale` times what it holds.

    Raises:
        BadInputError: a unit that is not known.
    """

    name: str
    unit: str
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.unit not in _UNITS:
            raise BadInputError(f"the unit of column {self.name!r} must be one of {', '.join(_UNITS)}, not {self.unit}")


def read_table(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the columns of a table of numbers by name.

    `.csv`: a line of names, then numbers; `.mat`: each numeric vector (MATLAB up to 7.2); else text: one column is
    named as the file without its ending, several are named 0, 1, ...

    Raises:
        BadInputError: a file that is no such table.
    """
    try:
        if path.suffix == ".mat":
            return _read_mat(path)
        return _read_csv(path) if path.suffix == ".csv" else _read_text(path)
    except (OSError, ValueError, NotImplementedError, MatReadError) as error:
        raise BadInputError(f"{path} cannot be read as a table of numbers: {error}") from error


def sequence_from_table(
    table: Table,
    flip: Column,
    tr: Column | float,
    te: Column | float,
    ti_s: float | None = None,
    inversion_efficiency: float = 1.0,
    phase: Column | None = None,
) -> MrfSequence:
    """Return the sequence of a table; `tr` and `te` may be one number in s.

    Raises:
        BadInputError: a missing column, columns of unequal length, or numbers that another unit would explain.
    """
    flips = _angle(table, flip)
    largest = float(flips.abs().max())
    if 0 < largest < _SMALLEST_DEG or largest > 360:
        other = "radians" if largest < _SMALLEST_DEG else "degrees"
        raise BadInputError(
            f"column {flip.name!r} gives flip angles up to {largest:.3g} degrees when read as {flip.unit}: "
            f"are they {other}?"
        )
    tr_s, te_s = (_time(table, times) for times in (tr, te))
    named = f"column {tr.name!r}" if isinstance(tr, Column) else "tr"
    if float(tr_s.min()) < _SHORTEST_S or float(tr_s.max()) > _LONGEST_S:
        raise BadInputError(
            f"{named} gives a TR of {float(tr_s.min()):.3g} to {float(tr_s.max()):.3g} s: "
            "was its unit taken for another?"
        )
    return MrfSequence(
        flips, tr_s, te_s, ti_s, inversion_efficiency, phase_deg=_angle(table, phase) if phase is not None else None
    )


def read_sequence(path: str | Path, ti_s: float | None = None, inversion_efficiency: float = 1.0) -> MrfSequence:
    """Return the sequence of a table whose columns say their units.

    Columns: `flip_deg` or `flip_rad`; `tr_s`, `tr_ms` or `tr_us`; `te_...`; and, where wanted, `phase_deg` or
    `phase_rad`. Tables with other names: `read_table` and `sequence_from_table`.

    Raises:
        BadInputError: a file without these columns, or what `sequence_from_table` refuses.
    """
    path = Path(path)
    table = read_table(path)
    flip, tr, te, phase = (
        _named(table, stem, units)
        for stem, units in (("flip", _ANGLES), ("tr", _TIMES), ("te", _TIMES), ("phase", _ANGLES))
    )
    if flip is None or tr is None or te is None:
        raise BadInputError(
            f"{path} has the columns {', '.join(table)}; expected flip_deg (or flip_rad), tr_s (or tr_ms, tr_us) and "
            "te_s (or te_ms, te_us)"
        )
    return sequence_from_table(table, flip, tr, te, ti_s, inversion_efficiency, phase)


def read_slice_profile(path: str | Path) -> SliceProfile:
    """Return the profile of a table with a line for each place across the slice.

    Columns: `flip_factor`, the flip angle there over the nominal one, and, where wanted, `weight` (alike otherwise;
    divided by their sum).

    Raises:
        BadInputError: a file without this column, numbers that are not finite, weights that are negative or all 0.
    """
    path = Path(path)
    table = read_table(path)
    if "flip_factor" not in table:
        raise BadInputError(f"{path} has the columns {', '.join(table)}; expected flip_factor and, perhaps, weight")
    factors = table["flip_factor"]
    weights = table.get("weight", np.ones_like(factors))
    if not (np.isfinite(factors).all() and (weights >= 0).all() and 0 < weights.sum() < np.inf):
        raise BadInputError(f"{path}: flip_factor must be finite, weight not negative and not 0 throughout")
    return SliceProfile(tuple(factors.tolist()), tuple((weights / weights.sum()).tolist()))


def delics_sequence() -> MrfSequence:
    """Return the FISP train of Deli-CS: 500 frames, TR 12 ms, TE 0.7 ms, inversion 20 ms before.

    Flips: 0 to 25 degrees in 84, 25 for 40, back in 84, 0 to 75 and back in 84 each, then 8.33, in straight ramps.
    Iyer et al. 2024 (Deli-CS).
    """
    parts = [
        torch.linspace(0, 25, 84),
        torch.full((40,), 25.0),
        torch.linspace(25, 0, 84),
        torch.linspace(0, 75, 84),
        torch.linspace(75, 0, 84),
        torch.full((124,), 8.33),
    ]
    return MrfSequence(torch.cat(parts), torch.tensor(0.012), torch.tensor(0.0007), ti_s=0.02)


def _read_mat(path: Path) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for name, values in loadmat(path).items():
        if (
            isinstance(values, np.ndarray)
            and np.issubdtype(values.dtype, np.number)
            and values.size == max(values.shape)
        ):
            columns[name] = values.reshape(-1).astype(np.float64)
    return columns


def _read_csv(path: Path) -> dict[str, NDArray[np.float64]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [row for row in csv.reader(file) if row]
    if not lines:
        raise ValueError("it is empty")
    names, *rows = lines
    if any(len(row) != len(names) for row in rows) or not rows:
        raise ValueError(f"each line below the names needs {len(names)} numbers")
    values = np.array(rows, dtype=np.float64)
    return {name.strip(): values[:, column] for column, name in enumerate(names)}


def _read_text(path: Path) -> dict[str, NDArray[np.float64]]:
    with path.open(encoding="utf-8-sig") as file:
        values = np.loadtxt(file, ndmin=2)
    if values.shape[1] == 1:
        return {path.stem: values[:, 0]}
    return {str(column): values[:, column] for column in range(values.shape[1])}


def _named(table: Table, stem: str, units: Mapping[str, float]) -> Column | None:
    found = [Column(f"{stem}_{unit}", unit) for unit in units if f"{stem}_{unit}" in table]
    if len(found) > 1:
        raise BadInputError(f"the table has {found[0].name} and {found[1].name}: which is meant?")
    return found[0] if found else None


def _angle(table: Table, column: Column) -> Tensor:
    if column.unit not in _ANGLES:
        raise BadInputError(f"column {column.name!r} holds angles and needs deg or rad, not {column.unit}")
    return _values(table, column) * _ANGLES[column.unit]


def _time(table: Table, column: Column | float) -> Tensor:
    if not isinstance(column, Column):
        return torch.tensor(column, dtype=torch.float64)
    if column.unit not in _TIMES:
        raise BadInputError(f"column {column.name!r} holds times and needs s, ms or us, not {column.unit}")
    return _values(table, column) * _TIMES[column.unit]


def _values(table: Table, column: Column) -> Tensor:
    if column.name not in table:
        raise BadInputError(f"there is no column {column.name!r}, only {', '.join(table)}")
    return column.offset + column.scale * torch.from_numpy(table[column.name])
