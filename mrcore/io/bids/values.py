"""Single values of a BIDS sidecar, in the types and units that they must have."""

from __future__ import annotations

from collections.abc import Mapping

from mrcore.errors import BadInputError

# dcm2niix takes vendors that it does not know for others: Hyperfine's scans were labelled Philips (dcm2niix#653).
LARGEST_SWOOP_T = 0.1
LARGEST_FIELD_T = 20.0
# BIDS gives times in seconds; above these a value must be in milliseconds.
LONGEST_S = {"RepetitionTime": 60.0, "EchoTime": 1.0, "InversionTime": 20.0}
_UNKNOWN = ("", "nan", "n/a", "na", "none", "null", "unknown")


def time_s(values: Mapping[str, object], key: str) -> float | None:
    """Return a time in seconds; None where it is unknown.

    Raises:
        BadInputError: no number, negative, or so long that it must be in milliseconds.
    """
    found = number(values, key)
    limit_s = LONGEST_S.get(key.removesuffix("Preparation").removesuffix("Excitation"))
    if found is not None and limit_s is not None and found > limit_s:
        raise BadInputError(
            f"{key} {found:g} is not plausible in seconds (at most {limit_s:g}); if it is in milliseconds, write "
            f"{found / 1000:g}"
        )
    return found


def count(values: Mapping[str, object], key: str) -> int | None:
    """Return a whole number; None where it is unknown.

    Raises:
        BadInputError: no number, negative, or not whole.
    """
    found = number(values, key)
    if found is not None and found != int(found):
        raise BadInputError(f"{key} must be a whole number, got {found:g}")
    return None if found is None else int(found)


def number(values: Mapping[str, object], key: str) -> float | None:
    """Return a number; None where it is absent, null, `n/a` or 0, which converters write for what they do not know.

    Raises:
        BadInputError: no finite number, a negative one, or several values.
    """
    value = values.get(key)
    if isinstance(value, list):
        if len(set(map(repr, value))) > 1:
            raise BadInputError(f"{key} lists several values, {value}; give the one of this image")
        value = value[0] if value else None
    if value is None or (isinstance(value, str) and value.strip().lower() in _UNKNOWN):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadInputError(f"{key} must be a number without unit, got {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
        raise BadInputError(f"{key} must be a finite number that is not negative, got {value!r}")
    return float(value) or None


def text(value: object) -> str:
    r"""Return a value of the sidecar, such as `GR\IR` or `["GR", "IR"]`, in small letters."""
    return " ".join(map(str, value)).lower() if isinstance(value, list) else str(value or "").lower()
