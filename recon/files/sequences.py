"""Pulse sequences of fingerprints from tables (CSV, text, MATLAB), with the unit of every column said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.signals.epg import SliceProfile
from mrcore.signals.mrf_sequence import MrfSequence
from recon.files.tables import Table, read_table

_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_ANGLES = {"deg": 1.0, "rad": 180 / np.pi}
_UNITS = _TIMES | _ANGLES
_FLIP = ("flip", "fa", "flip_angle", "flipangle")
_PHASE = ("phase", "rf_phase")

# What lies outside was given in another unit.
_SMALLEST_DEG, _LARGEST_DEG = 3.2, 200.0  # of the largest flip angle
_FULL_TURN = 6.29  # 2 pi
_SHORTEST_TR_S, _USUAL_TR_S, _LONGEST_TR_S, _LONGEST_TRAIN_S = 5e-4, 4.0, 20.0, 1800.0
_SHORTEST_TE_S, _LONGEST_TE_S = 2e-5, 0.5  # of the longest TE
_LONGEST_TI_S = 5.0


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


def sequence_from_table(
    table: Table,
    flip: Column,
    tr: Column | float,
    te: Column | float,
    ti_s: float | None = None,
    inversion_efficiency: float = 1.0,
    phase: Column | None = None,
) -> MrfSequence:
    """Return the sequence of a table; `tr` and `te` may be one number in s, columns of one number stand for all frames.

    Raises:
        BadInputError: a missing column, columns of unequal length, or numbers that another unit would explain.
    """
    flips, tr_s, te_s = _angle(table, flip), _time(table, tr), _time(table, te)
    n_frames = len(flips)
    _check(flip, _Rule("flip angles", "degrees", _ANGLES, "the largest may be 3.2 to 200 degrees", _is_flips), flips)
    tr_rule = "expected are 0.5 ms to 20 s, usually below 4 s, and half an hour in all"
    _check(tr, _Rule("TR", "s", _TIMES, tr_rule, lambda seconds: _is_tr(seconds, n_frames)), tr_s)
    te_rule = "expected is 0 <= TE <= TR, up to 0.5 s"
    _check(te, _Rule("TE", "s", _TIMES, te_rule, lambda seconds: _is_te(seconds, tr_s)), te_s)
    phases = None if phase is None else _angle(table, phase)
    if phase is not None and phases is not None:
        rule = _Rule("RF phases", "degrees", _ANGLES, "", lambda degrees: _is_phases(degrees, phase.unit))
        _check(phase, rule, phases)
    if ti_s is not None and ti_s > _LONGEST_TI_S:
        raise BadInputError(f"an inversion {ti_s:g} s before the train: were milliseconds given for seconds?")
    tr_s, te_s = (times.expand(n_frames) if len(times) == 1 else times for times in (tr_s, te_s))
    return MrfSequence(flips, tr_s, te_s, ti_s, inversion_efficiency, phase_deg=phases)


def read_sequence(path: str | Path, ti_s: float | None = None, inversion_efficiency: float = 1.0) -> MrfSequence:
    """Return the sequence of a table (see `recon.files.tables.read_table`) whose columns say their units.

    Columns, in capitals or not: `flip_deg` or `flip_rad`; `tr_s`, `tr_ms` or `tr_us`; `te_...`; and, where wanted,
    `phase_deg` or `phase_rad`. Also understood are FA for flip, and units in brackets: `TR (ms)`, `FA [deg]`. Tables
    with other names: `read_table` and `sequence_from_table`.

    Raises:
        BadInputError: a file without these columns, or what `sequence_from_table` refuses.
    """
    path = Path(path)
    table = read_table(path)
    flip, tr, te, phase = (
        _named(table, stems, units)
        for stems, units in ((_FLIP, _ANGLES), (("tr",), _TIMES), (("te",), _TIMES), (_PHASE, _ANGLES))
    )
    if flip is None or tr is None or te is None:
        raise BadInputError(
            f"{path} has the columns {', '.join(table)}; expected flip_deg (or flip_rad), tr_s (or tr_ms, tr_us) and "
            f"te_s (or te_ms, te_us){_without_unit(table)}"
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


def _is_flips(degrees: Tensor) -> bool:
    """Whether a train may have these flip angles; one that never flips further than pi was given in radians."""
    largest = float(degrees.abs().max())
    return largest == 0 or _SMALLEST_DEG <= largest <= _LARGEST_DEG


def _is_phases(degrees: Tensor, unit: str) -> bool:
    """Whether RF may have these phases: none all within 2 pi degrees, no whole numbers of radians."""
    largest = float(degrees.abs().max())
    if unit == "deg":
        return largest == 0 or largest > _FULL_TURN
    radians = torch.deg2rad(degrees)
    return float(radians.abs().max()) <= _FULL_TURN or bool(((radians - radians.round()).abs() > 1e-6).any())


def _is_tr(seconds: Tensor, n_frames: int) -> bool:
    """Whether a train may have these repetition times; few frames may be long, as where the train waits."""
    n_times = n_frames / len(seconds)
    return (
        float(seconds.min()) >= _SHORTEST_TR_S
        and float(seconds.max()) <= _LONGEST_TR_S
        and float(seconds.median()) <= _USUAL_TR_S
        and float(seconds.sum()) * n_times <= _LONGEST_TRAIN_S
    )


def _is_te(seconds: Tensor, tr_s: Tensor) -> bool:
    """Whether these echo times, all 0 for none, fit the repetition times."""
    if len(seconds) > 1 and len(tr_s) > 1 and len(seconds) != len(tr_s):
        return True  # said elsewhere
    return (
        float(seconds.min()) >= 0
        and (float(seconds.max()) == 0 or _SHORTEST_TE_S <= float(seconds.max()) <= _LONGEST_TE_S)
        and bool((seconds <= tr_s).all())
    )


@dataclass(frozen=True)
class _Rule:
    """What a column of `what` must hold, once in `unit`; `worth` are the units in which it may be stored."""

    what: str
    unit: str
    worth: Mapping[str, float]
    text: str
    holds: Callable[[Tensor], bool]


def _check(column: Column | float, rule: _Rule, values: Tensor) -> None:
    """Refuse `values` of a column that are not plausible, with the unit in which they would be."""
    if not bool(values.isfinite().all()) or rule.holds(values):
        return  # what is not finite is said elsewhere
    text = f"{rule.what} of {float(values.min()):.3g} to {float(values.max()):.3g} {rule.unit}"
    if not isinstance(column, Column):
        raise BadInputError(f"a {text} cannot be: {rule.text}; it is wanted in s")
    stored = values / rule.worth[column.unit]
    others = [u for u, factor in rule.worth.items() if u != column.unit and rule.holds(factor * stored)]
    guess = f"they would be plausible in {' or '.join(others)}" if others else rule.text
    raise BadInputError(f"column {column.name!r} gives {text} when read as {column.unit}: {guess}")


def _named(table: Table, stems: tuple[str, ...], units: Mapping[str, float]) -> Column | None:
    wanted = {f"{stem}_{unit}": unit for stem in stems for unit in units}
    found = [Column(name, wanted[_plain(name)]) for name in table if _plain(name) in wanted]
    if len(found) > 1:
        raise BadInputError(f"the table has {found[0].name} and {found[1].name}: which is meant?")
    return found[0] if found else None


def _plain(name: str) -> str:
    """Return the name of a column in small letters, with underscores for all that is neither letter nor digit."""
    spelled = name.lower().replace("\N{DEGREE SIGN}", "deg").replace("\N{MICRO SIGN}", "u")
    return re.sub(r"[^a-z0-9]+", "_", spelled).strip("_")


def _without_unit(table: Table) -> str:
    """Return which columns have a name that is known but say no unit, with the names that their numbers would fit."""
    checks: dict[str, tuple[str, Mapping[str, float], Callable[[Tensor], bool]]] = {
        **dict.fromkeys(_FLIP, ("flip", _ANGLES, _is_flips)),
        "tr": ("tr", _TIMES, lambda seconds: _is_tr(seconds, len(seconds))),
        "te": ("te", _TIMES, lambda seconds: _is_te(seconds, seconds)),
    }
    text = ""
    for name, values in table.items():
        if _plain(name) in checks and np.isfinite(values).all():
            stem, units, is_plausible = checks[_plain(name)]
            fitting = [f"{stem}_{u}" for u, factor in units.items() if is_plausible(factor * torch.from_numpy(values))]
            text += f"; column {name!r} says no unit, its numbers would fit {' or '.join(fitting) or 'none'}"
    return text


def _angle(table: Table, column: Column) -> Tensor:
    if column.unit not in _ANGLES:
        raise BadInputError(f"column {column.name!r} holds angles and needs deg or rad, not {column.unit}")
    return _values(table, column) * _ANGLES[column.unit]


def _time(table: Table, column: Column | float) -> Tensor:
    if not isinstance(column, Column):
        return torch.tensor([column], dtype=torch.float64)
    if column.unit not in _TIMES:
        raise BadInputError(f"column {column.name!r} holds times and needs s, ms or us, not {column.unit}")
    return _values(table, column) * _TIMES[column.unit]


def _values(table: Table, column: Column) -> Tensor:
    if column.name not in table:
        raise BadInputError(f"there is no column {column.name!r}, only {', '.join(table)}")
    return column.offset + column.scale * torch.from_numpy(table[column.name])
