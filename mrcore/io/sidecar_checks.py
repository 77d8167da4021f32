"""What BIDS sidecars of MRI are known to get wrong."""

from __future__ import annotations

from collections.abc import Mapping

from mrcore.notes import Problem, Severity

# dcm2niix takes vendors that it does not know for others: Hyperfine's scans were labelled Philips (dcm2niix#653).
LARGEST_SWOOP_T = 0.1
LARGEST_FIELD_T = 20.0
# BIDS gives times in seconds; above these a value must be in milliseconds.
LONGEST_S = {"RepetitionTime": 60.0, "EchoTime": 1.0, "InversionTime": 20.0}


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
