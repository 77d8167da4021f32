"""The weighting of a scan (T1w, T2w, FLAIR) by the names and the times in its sidecar."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mrcore.errors import BadInputError
from mrcore.io.bids.values import text, time_s

# From the most to the least deliberate name; vendors' sequence names come last.
NAMES = ("ProtocolName", "SeriesDescription", "PulseSequenceName", "SequenceName", "ScanningSequence")
_LONG_RECOVERY_S = 1.5
INVERTED = re.compile(r"mp-?2?rage|tfl|bravo")
GRADIENT_ECHO_T1 = re.compile(INVERTED.pattern + r"|spgr|flash|tfe|vibe")


def named_weighting(values: Mapping[str, object]) -> tuple[str | None, str]:
    """Return the BIDS suffix of the weighting that a name in the sidecar says, and its key; None where none does."""
    for key in NAMES:
        found = _weighting_in(text(values.get(key)))
        if found is not None:
            return found, key
    return None, ""


def weighting_by_times(values: Mapping[str, object]) -> str | None:
    """Return the weighting that echo, repetition and inversion time say; None where they are unknown or between two.

    Times that must be in milliseconds are taken for unknown. Short echoes after long recovery weight by density.
    """
    try:
        te_s, tr_s, ti_s = (time_s(values, key) for key in ("EchoTime", "RepetitionTime", "InversionTime"))
    except BadInputError:
        return None
    if te_s is None or 0.03 < te_s < 0.06:
        return None
    if te_s <= 0.03:
        return None if ti_s is None and (tr_s or 0.0) > _LONG_RECOVERY_S else "T1w"
    return "FLAIR" if ti_s else "T2w"


def _weighting_in(name: str) -> str | None:
    is_t1 = bool(re.search(r"(?<![a-z0-9])t1(?!\d|rho)", name))
    is_t2 = bool(re.search(r"(?<![a-z0-9])t2(?!\d)", name))
    if (is_t1 and is_t2) or re.search(r"t2(\s?\*|_?star)", name):
        return None
    if is_t1:  # also a T1 FLAIR, as vendors call an inversion-prepared T1w
        return "T1w"
    if re.search(r"flair|dark.?fluid|tirm|spcir", name):
        return "FLAIR"
    return "T2w" if is_t2 else "T1w" if GRADIENT_ECHO_T1.search(name) else None
