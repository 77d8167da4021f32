"""What BIDS sidecars of MRI are known to get wrong."""

from __future__ import annotations

from collections.abc import Mapping

from mrcore.io.bids.values import LARGEST_FIELD_T, LARGEST_SWOOP_T, LONGEST_S
from mrcore.notes import Problem, Severity


def sidecar_problems(values: Mapping[str, object], name: str) -> list[Problem]:
    """Return warnings about the keys of the sidecar `name`: units, vendor against field strength."""
    texts = [*_field(values), *_times(values), *_vendor(values)]
    return [Problem(f"sidecar {name}: {text}", Severity.CAUTION) for text in texts]


def _field(values: Mapping[str, object]) -> list[str]:
    if "MagneticFieldStrength" not in values:
        return []
    field_t = values["MagneticFieldStrength"]
    if not isinstance(field_t, int | float) or field_t <= 0:
        return [f"MagneticFieldStrength must be a positive number in tesla, got {field_t!r}"]
    if field_t > LARGEST_FIELD_T:
        return [f"MagneticFieldStrength {field_t:g} cannot be in tesla; is it in mT or gauss?"]
    return []


def _times(values: Mapping[str, object]) -> list[str]:
    found = []
    for key, longest_s in LONGEST_S.items():
        time_s = values.get(key)
        if isinstance(time_s, int | float) and time_s > longest_s:
            found.append(f"{key} {time_s:g} is not plausible in seconds; is it in ms?")
    return found


def _vendor(values: Mapping[str, object]) -> list[str]:
    field_t, vendor = values.get("MagneticFieldStrength"), str(values.get("Manufacturer", ""))
    model = str(values.get("ManufacturersModelName", ""))
    low_field = isinstance(field_t, int | float) and 0 < field_t <= LARGEST_SWOOP_T
    is_hyperfine = "hyperfine" in vendor.lower()
    if vendor and not is_hyperfine and (low_field or "swoop" in model.lower()):
        what = f"{field_t:g} T" if low_field else f"the model {model}"
        return [f"Manufacturer '{vendor}' does not go with {what}; dcm2niix labels Hyperfine scans so (its issue 653)"]
    if is_hyperfine and isinstance(field_t, int | float) and field_t > LARGEST_SWOOP_T:
        return [f"Manufacturer '{vendor}' does not go with {field_t:g} T; its scanners have 0.064 T"]
    return []
