"""Tissue tables of the user, in TOML or JSON: own relaxation times, each with its source, over the built-in ones.

One block per tissue, with `t1_s`, `t2_s` (in seconds) and `pd` (water is 1). A quantity is a list of anchors,

    [WM]
    t1_s = [
        { field_t = 0.064, value = 0.30, spread = 0.02, source = "own scan" },
        { field_t = 0.5, value = 0.46, source = "Smith 2020" },
    ]

between which it is interpolated and beyond which nothing is claimed, or a number known at one field only; field,
source and (relative) spread of numbers stand in the block:

    [GM]
    field_t = 0.064
    source = "own scan"
    spread = 0.1
    t1_s = 0.34
    t2_s = 0.10

A block replaces the quantities that it names and keeps the built-in others (here PD); a tissue that is new needs all
three. Spreads are half the range of plausible values, of anchors in the unit of the value; they may be left out (0).
JSON holds the same keys.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from mrcore.errors import BadInputError
from mrcore.signals.tissue import TISSUE_TABLE, Anchor, Tissue

_LARGEST = {"t1_s": 10.0, "t2_s": 5.0, "pd": 1.5}
_TOO_LARGE = {"t1_s": "were milliseconds meant?", "t2_s": "were milliseconds meant?", "pd": "water is 1, not 100"}
_QUANTITIES = tuple(_LARGEST)
_COMMON = ("field_t", "source", "spread")
_ANCHOR = ("field_t", "value", "spread", "source")


def load_tissue_table(path: str | Path, base: Mapping[str, Tissue] = TISSUE_TABLE) -> Mapping[str, Tissue]:
    """Return `base` with what the file (`.toml` or `.json`, format above) says in its place.

    Raises:
        BadInputError: the file is missing or has another ending; its syntax, a key, a unit or a number is wrong, or a
            field or source is missing; the message names file, tissue and key.
    """
    path = Path(path)
    blocks = _read(path)
    if not blocks:
        raise BadInputError(f"the tissue table {path} is empty; it needs a block for at least one tissue")
    table = dict(base)
    for name, block in blocks.items():
        where = f"{path}, {name}"
        if not isinstance(block, Mapping):
            raise BadInputError(f"{where}: expected a block with {', '.join(_QUANTITIES)}, got {block!r}")
        table[name] = _tissue(block, base.get(name), where)
    return MappingProxyType(table)


def _read(path: Path) -> Mapping[str, object]:
    kind = path.suffix.lower()
    if kind not in (".toml", ".json"):
        raise BadInputError(f"a tissue table is a .toml or .json file, got {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if kind == ".toml" else json.loads(text, object_pairs_hook=_without_repeats)
    except (OSError, ValueError) as error:
        raise BadInputError(f"the tissue table {path} cannot be read: {error}") from None
    if not isinstance(values, Mapping):
        raise BadInputError(f"the tissue table {path} must hold one block per tissue, got {type(values).__name__}")
    return values


def _without_repeats(items: list[tuple[str, object]]) -> dict[str, object]:
    """Return the items of a JSON object; TOML refuses repeated keys, JSON would keep the last."""
    values = dict(items)
    if len(values) < len(items):
        raise ValueError(f"a key is given twice among {[key for key, _ in items]}")
    return values


def _tissue(block: Mapping[str, object], known: Tissue | None, where: str) -> Tissue:
    _refuse_unknown(block, (*_QUANTITIES, *_COMMON), where)
    given = {key: _anchors(block, key, f"{where}, {key}") for key in _QUANTITIES if key in block}
    if not given:
        raise BadInputError(f"{where}: none of {', '.join(_QUANTITIES)} is given")
    kept = {} if known is None else {"t1_s": known.t1_s, "t2_s": known.t2_s, "pd": known.pd}
    missing = [key for key in _QUANTITIES if key not in given and key not in kept]
    if missing:
        raise BadInputError(f"{where}: the built-in table lacks this tissue, so {', '.join(missing)} must be given too")
    merged = kept | given
    _refuse_t2_above_t1(merged["t1_s"], merged["t2_s"], where)
    return Tissue(merged["t1_s"], merged["t2_s"], merged["pd"])


def _anchors(block: Mapping[str, object], key: str, where: str) -> tuple[Anchor, ...]:
    value = block[key]
    if isinstance(value, list):
        anchors = tuple(_anchor(item, key, f"{where}, anchor {i + 1}") for i, item in enumerate(value))
        fields = [anchor.field_t for anchor in anchors]
        if not fields or sorted(set(fields)) != fields:
            raise BadInputError(f"{where}: anchors must come in order of rising field, at least one; got {fields} T")
        return anchors
    number = _value(value, key, where)
    share = _number(block.get("spread", 0.0), f"{where}: spread")
    if not 0 <= share < 1:
        raise BadInputError(f"{where}: beside numbers, spread is a fraction of the value from 0 to 1, got {share:g}")
    return (Anchor(_field(block, where), number, share * number, _source(block, where)),)


def _anchor(item: object, key: str, where: str) -> Anchor:
    if not isinstance(item, Mapping):
        raise BadInputError(f"{where}: an anchor has the keys {', '.join(_ANCHOR)}, got {item!r}")
    _refuse_unknown(item, _ANCHOR, where)
    if "value" not in item:
        raise BadInputError(f"{where}: value is missing")
    number = _value(item["value"], key, where)
    spread = _number(item.get("spread", 0.0), f"{where}: spread")
    if not 0 <= spread <= number:
        raise BadInputError(f"{where}: spread must lie between 0 and the value {number:g}, got {spread:g}")
    return Anchor(_field(item, where), number, spread, _source(item, where))


def _value(value: object, key: str, where: str) -> float:
    number = _number(value, where)
    if not 0 < number <= _LARGEST[key]:
        hint = _TOO_LARGE[key] if number > 0 else "it must be positive"
        raise BadInputError(f"{where}: expected a value between 0 and {_LARGEST[key]:g}, got {number:g}; {hint}")
    return number


def _field(values: Mapping[str, object], where: str) -> float:
    if "field_t" not in values:
        raise BadInputError(f"{where}: field_t (in tesla) is missing")
    field_t = _number(values["field_t"], f"{where}: field_t")
    if not 0.001 <= field_t <= 20:
        hint = "; were millitesla meant?" if field_t > 20 else ""
        raise BadInputError(f"{where}: field_t is in tesla and between 0.001 and 20, got {field_t:g}{hint}")
    return field_t


def _source(values: Mapping[str, object], where: str) -> str:
    source = values.get("source")
    if not isinstance(source, str) or not source.strip():
        raise BadInputError(f"{where}: source is missing; say in words where the number is from")
    return source


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise BadInputError(f"{where}: expected a number, got {value!r}")
    return float(value)


def _refuse_unknown(values: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise BadInputError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(known)}")


def _refuse_t2_above_t1(t1: tuple[Anchor, ...], t2: tuple[Anchor, ...], where: str) -> None:
    """Compare the anchors of one field, so that swapped columns are found."""
    for longer in t2:
        for shorter in t1:
            if shorter.field_t == longer.field_t and longer.value > shorter.value:
                raise BadInputError(
                    f"{where}: T2 {longer.value:g} s is above T1 {shorter.value:g} s at {longer.field_t:g} T, which "
                    "no tissue has; were they swapped?"
                )
