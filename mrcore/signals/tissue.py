"""Relaxation times and proton density of tissues at a field strength; every number has a source and a spread.

Between measured anchors log T1 (and log T2) is linear in log B0; beyond them nothing is claimed. The often quoted
power law of Rooney (MRM 2007;57:308), T1 = C f^b, fits 0.2 to 7 T but gives 204 / 305 ms for WM / GM at 64 mT,
below what was measured at 50 mT, so it is used here only at fields that it was fitted to. Published values differ
by more than most papers state: give your own table where you know better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mrcore.errors import BadInputError


@dataclass(frozen=True)
class Anchor:
    """One measured value at one field, with `spread` (half the range of published values, same unit) and source."""

    field_t: float
    value: float
    spread: float
    source: str

    def __post_init__(self) -> None:
        if not (self.field_t > 0 and self.value > 0 and self.spread >= 0):
            raise BadInputError(f"an anchor needs a positive field and value and a spread of at least 0, got {self}")


@dataclass(frozen=True)
class Tissue:
    """Anchors of one tissue, T1 and T2 in s, PD relative to water; each tuple in order of rising field."""

    t1_s: tuple[Anchor, ...]
    t2_s: tuple[Anchor, ...]
    pd: tuple[Anchor, ...]

    def __post_init__(self) -> None:
        for anchors in (self.t1_s, self.t2_s, self.pd):
            fields = [a.field_t for a in anchors]
            if not fields or sorted(set(fields)) != fields:
                raise BadInputError(f"anchors must be given in order of rising field, at least one; got {fields} T")


@dataclass(frozen=True)
class Relaxation:
    """T1 and T2 in s and proton density (1 is water) of one tissue at one field, with spreads and sources."""

    t1_s: float
    t2_s: float
    pd: float
    t1_spread_s: float = 0.0
    t2_spread_s: float = 0.0
    pd_spread: float = 0.0
    sources: tuple[str, ...] = ()


_OREILLY = "O'Reilly & Webb, MRM 2022;87:884, in vivo at 50 mT"
_ROONEY = "power law of Rooney, MRM 2007;57:308, fitted to 0.2-7 T"
_RANGE_15 = "range of published values at 1.5 T"
_ROONEY_15 = f"{_RANGE_15}, at whose ends Rooney, MRM 2007;57:308 gives 0.681 (WM) and 0.998 s (GM)"
_RANGE_3 = "range of published values at 3 T (Wansapura, JMRI 1999;9:531 and later)"
_STANISZ = "range of published values; hardly depends on field (Stanisz, MRM 2005;54:507)"
_MEMORY = "from memory, not verified against the paper"
_LOW, _HIGH = 0.05, 3.0


def _flat(value: float, spread: float, source: str) -> tuple[Anchor, Anchor]:
    """Return anchors of a quantity that is taken as the same over the whole range of fields."""
    return Anchor(_LOW, value, spread, source), Anchor(_HIGH, value, spread, source)


_PD = "range of published values, relative to water"

TISSUE_TABLE: Mapping[str, Tissue] = MappingProxyType(
    {
        "CSF": Tissue(
            t1_s=(
                Anchor(_LOW, 4.0, 0.3, "range of published values near 64 mT"),
                Anchor(1.5, 4.28, 0.3, "published value at 1.5 T; Rooney 2007 gives 4.33 s at every field"),
                Anchor(_HIGH, 4.23, 0.07, _RANGE_3),
            ),
            t2_s=_flat(1.875, 0.225, _STANISZ),
            pd=_flat(1.0, 0.0, "definition"),
        ),
        "GM": Tissue(
            t1_s=(
                Anchor(_LOW, 0.327, 0.03, _OREILLY),
                Anchor(0.55, 0.685, 0.05, _ROONEY),
                Anchor(1.5, 1.049, 0.051, _ROONEY_15),
                Anchor(_HIGH, 1.313, 0.018, _RANGE_3),
            ),
            t2_s=_flat(0.0965, 0.0135, _STANISZ),
            pd=_flat(0.81, 0.01, _PD),
        ),
        "WM": Tissue(
            t1_s=(
                Anchor(_LOW, 0.275, 0.03, _OREILLY),
                Anchor(0.55, 0.464, 0.05, _ROONEY),
                Anchor(1.5, 0.6205, 0.0605, _ROONEY_15),
                Anchor(_HIGH, 0.8595, 0.0275, _RANGE_3),
            ),
            t2_s=_flat(0.077, 0.008, _STANISZ),
            pd=_flat(0.70, 0.02, _PD),
        ),
        "FAT": Tissue(
            t1_s=(
                Anchor(_LOW, 0.130, 0.03, f"O'Reilly & Webb 2022, {_MEMORY}"),
                Anchor(1.5, 0.290, 0.03, _RANGE_15),
                Anchor(_HIGH, 0.370, 0.03, _RANGE_3),
            ),
            t2_s=(
                Anchor(_LOW, 0.090, 0.02, f"O'Reilly & Webb 2022, {_MEMORY}"),
                Anchor(1.5, 0.145, 0.02, _STANISZ),
                Anchor(_HIGH, 0.145, 0.02, _STANISZ),
            ),
            pd=_flat(1.0, 0.1, _PD),
        ),
        "MUSCLE": Tissue(
            t1_s=(
                Anchor(_LOW, 0.171, 0.03, f"O'Reilly & Webb 2022, {_MEMORY}"),
                Anchor(1.5, 0.900, 0.1, _RANGE_15),
            ),
            t2_s=(
                Anchor(_LOW, 0.039, 0.005, f"O'Reilly & Webb 2022, {_MEMORY}"),
                Anchor(1.5, 0.047, 0.005, _RANGE_15),
            ),
            pd=(Anchor(_LOW, 0.80, 0.1, _MEMORY), Anchor(1.5, 0.80, 0.1, _MEMORY)),
        ),
    }
)
"""Adult tissues, 0.05 to 3 T (muscle to 1.5 T). No neonatal values at 64 mT are published that we found: none here."""


def relaxation(tissue: str, field_t: float, table: Mapping[str, Tissue] = TISSUE_TABLE) -> Relaxation:
    """Return T1, T2 and PD of `tissue` at `field_t` (T), interpolated in log-log between the anchors of `table`.

    The spread is interpolated too, as a fraction of the value.

    Raises:
        BadInputError: a tissue that the table lacks, or a field outside its anchors.
    """
    if tissue not in table:
        raise BadInputError(f"no relaxation times for tissue '{tissue}'; the table has {sorted(table)}")
    entry = table[tissue]
    t1, t2, pd = (
        _interpolate(anchors, field_t, f"{quantity} of {tissue}")
        for anchors, quantity in ((entry.t1_s, "T1"), (entry.t2_s, "T2"), (entry.pd, "PD"))
    )
    sources = tuple(dict.fromkeys(t1.source.split("; ") + t2.source.split("; ") + pd.source.split("; ")))
    return Relaxation(t1.value, t2.value, pd.value, t1.spread, t2.spread, pd.spread, sources)


def known_at(field_t: float, t1_s: float, t2_s: float, pd: float, source: str, spread: float = 0.0) -> Tissue:
    """Build a tissue that is known at one field only.

    For example `{**TISSUE_TABLE, "WM": known_at(0.064, 0.3, 0.08, 0.7, "own scan")}` is a table with it.
    `spread` is a fraction of each value.
    """
    anchors = ((Anchor(field_t, v, spread * v, source),) for v in (t1_s, t2_s, pd))
    return Tissue(*anchors)


def _interpolate(anchors: tuple[Anchor, ...], field_t: float, what: str) -> Anchor:
    low, high = anchors[0].field_t, anchors[-1].field_t
    if not low * (1 - 1e-9) <= field_t <= high * (1 + 1e-9):
        raise BadInputError(
            f"{what} is known from {low:g} to {high:g} T and is not extrapolated to {field_t:g} T; "
            "give a tissue table with a value at that field (mrcore.signals.known_at)"
        )
    for anchor in anchors:
        if math.isclose(anchor.field_t, field_t, rel_tol=1e-9):
            return anchor
    right = next(i for i, a in enumerate(anchors) if a.field_t > field_t)
    a, b = anchors[right - 1], anchors[right]
    part = math.log(field_t / a.field_t) / math.log(b.field_t / a.field_t)
    value = math.exp((1 - part) * math.log(a.value) + part * math.log(b.value))
    spread = value * ((1 - part) * a.spread / a.value + part * b.spread / b.value)
    source = a.source if a.source == b.source else f"{a.source}; {b.source}"
    return Anchor(field_t, value, spread, source)
