"""Sequence and field of a scan from its BIDS sidecar, with all that sidecars leave out or get wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from mrcore.data.acquisition import PulseSequence, from_json
from mrcore.errors import BadInputError
from mrcore.io.bids.values import LARGEST_FIELD_T, LARGEST_SWOOP_T, count, number, text, time_s
from mrcore.io.bids.weighting import GRADIENT_ECHO_T1, INVERTED, NAMES, named_weighting, weighting_by_times

_REMEDY = (
    "add them to the sidecar (BIDS keys, seconds and degrees), give a protocol as JSON, or use a preset for this "
    "weighting"
)
_SWOOP_T = 0.064
_SWOOP_KEYS = (
    "Manufacturer",
    "ManufacturersModelName",
    "DeviceSerialNumber",
    "StationName",
    "InstitutionName",
    "SoftwareVersions",
)
# Usual 3 T protocol (ADNI: 7 ms, 170 to 208 excitations); the order of contrasts hardly depends on it.
_ASSUMED_SPACING_S, _ASSUMED_EXCITATIONS = 0.007, 176
_SHORTEST_CYCLE_S = 0.1  # nothing shorter is a time between inversions


class SidecarSequence(NamedTuple):
    """What a sidecar says: the sequence, the field in tesla (None where it is not said), and notes for the user."""

    sequence: PulseSequence
    field_t: float | None
    notes: tuple[str, ...]


def sequence_from_sidecar(values: Mapping[str, object], fallback_weighting: str | None = None) -> SidecarSequence:
    """Return sequence, field and notes of a sidecar; `fallback_weighting` (BIDS suffix) counts where it names none.

    Sidecars of mrkit give back what they were written from. The scanners of Hyperfine, which converters label as those
    of other vendors (dcm2niix#653: Philips) and whose field is found missing or in mT, are taken to have 0.064 T. Zero
    means unknown. An inversion-prepared train of gradient echoes needs the number and spacing of its excitations,
    which sidecars seldom hold (NumberShots, RepetitionTimeExcitation): those of a usual protocol are then assumed.

    Raises:
        BadInputError: what the contrast depends on is missing (all of it is listed), is no number, is negative, or is
            not in seconds or tesla.
    """
    own = values.get("Acquisition")
    if isinstance(own, Mapping) and "sequence" in own:
        acquisition = from_json(values)
        return SidecarSequence(acquisition.sequence, acquisition.field_t, ())
    field_t, notes = field_from_sidecar(values)
    weighting, weighting_notes = _weighting(values, fallback_weighting)
    sequence = PulseSequence(
        weighting or "unknown",
        time_s(values, "RepetitionTimePreparation") or time_s(values, "RepetitionTime"),
        time_s(values, "EchoTime"),
        time_s(values, "InversionTime"),
        number(values, "FlipAngle"),
        count(values, "EchoTrainLength"),
    )
    if _is_gradient_echo(values, sequence):
        sequence, train_notes = _gradient_echo(values, sequence)
    else:
        # The flip angle of a spin echo is that of its refocusing; below 90 it would name a gradient echo.
        sequence, train_notes = (replace(sequence, flip_deg=None) if (sequence.flip_deg or 90) < 90 else sequence), ()
    _refuse_incomplete(values, sequence, weighting)
    return SidecarSequence(sequence, field_t, (*notes, *weighting_notes, *train_notes))


def is_hyperfine(values: Mapping[str, object]) -> bool:
    """Return whether any key that names the machine says Hyperfine or Swoop."""
    return any(re.search("hyperfine|swoop", str(values.get(key, "")), re.IGNORECASE) for key in _SWOOP_KEYS)


def field_from_sidecar(values: Mapping[str, object]) -> tuple[float | None, tuple[str, ...]]:
    """Return the field in tesla, None where it is not said, and notes; Hyperfine's scanners have 0.064 T.

    Raises:
        BadInputError: a field that is no number, is negative, or cannot be in tesla.
    """
    found, vendor = number(values, "MagneticFieldStrength"), str(values.get("Manufacturer") or "none")
    if not is_hyperfine(values):
        if found is not None and found > LARGEST_FIELD_T:
            raise BadInputError(f"MagneticFieldStrength {found:g} cannot be in tesla; is it in mT or gauss?")
        return found, ()
    mislabelled = "hyperfine" not in vendor.lower()
    notes = [f"a Hyperfine scan whose sidecar names the manufacturer '{vendor}' (see dcm2niix#653)"] * mislabelled
    if found is None or found > LARGEST_SWOOP_T:
        field_text = "no field" if found is None else f"{found:g} T"
        notes.append(f"a Hyperfine scan whose sidecar names {field_text}: taken as {_SWOOP_T} T")
        found = _SWOOP_T
    return found, tuple(notes)


def _weighting(values: Mapping[str, object], fallback: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the weighting that a name says, else the fallback, else what the times say."""
    named, key = named_weighting(values)
    if named is not None:
        differs = fallback is not None and fallback != named
        return named, (f"weighting {named} by {key}, not {fallback} as the file's name has it",) * differs
    if fallback is not None:
        return fallback, ()
    guess = weighting_by_times(values)
    return guess, (f"weighting {guess} by its times alone: no name says it",) * (guess is not None)


def _is_gradient_echo(values: Mapping[str, object], sequence: PulseSequence) -> bool:
    kinds = set(re.split(r"[^a-z]+", text(values.get("ScanningSequence"))))
    if kinds & {"se", "gr"}:
        return "se" not in kinds
    if sequence.flip_deg is not None and sequence.flip_deg >= 90:
        return False
    named = any(GRADIENT_ECHO_T1.search(text(values.get(key))) for key in NAMES)
    return named or (sequence.flip_deg is not None and (sequence.echo_train_length or 1) == 1)


def _gradient_echo(values: Mapping[str, object], sequence: PulseSequence) -> tuple[PulseSequence, tuple[str, ...]]:
    """Return the sequence with the train of its excitations where it is inversion-prepared."""
    excitation_s = time_s(values, "RepetitionTimeExcitation")
    if sequence.ti_s is None:
        return replace(sequence, tr_s=excitation_s or sequence.tr_s, echo_train_length=None), ()
    tr_s = sequence.tr_s
    if tr_s is not None and (tr_s <= sequence.ti_s or tr_s < _SHORTEST_CYCLE_S):
        # Philips and GE state the time between excitations as the repetition time.
        excitation_s, tr_s = excitation_s or tr_s, None
    spacing_s = excitation_s or _ASSUMED_SPACING_S
    n = count(values, "NumberShots")
    assumed = [f"spacing {spacing_s:g} s"] * (excitation_s is None)
    if n is None:
        room_s = min(sequence.ti_s, (tr_s or math.inf) - sequence.ti_s)
        n = max(1, min(_ASSUMED_EXCITATIONS, int(2 * room_s / spacing_s) - 1))
        assumed.append(f"{n} excitations")
    notes = (f"assumed for the train of gradient echoes, which the sidecar leaves out: {', '.join(assumed)}",)
    train = replace(sequence, tr_s=tr_s, echo_train_length=n, echo_spacing_s=spacing_s)
    return train, notes if assumed else ()


def _refuse_incomplete(values: Mapping[str, object], sequence: PulseSequence, weighting: str | None) -> None:
    names = " ".join(text(values.get(key)) for key in NAMES)
    gradient_echo = _is_gradient_echo(values, sequence)
    missing = []
    if weighting is None:
        missing.append("a name that says the weighting (SeriesDescription or ProtocolName)")
    if sequence.tr_s is None:
        prepared = gradient_echo and sequence.ti_s is not None
        missing.append("RepetitionTimePreparation (the time between inversions)" if prepared else "RepetitionTime")
    if sequence.te_s is None:
        missing.append("EchoTime")
    if sequence.ti_s is None and (weighting == "FLAIR" or (weighting == "T1w" and INVERTED.search(names))):
        missing.append("InversionTime")
    if gradient_echo and sequence.flip_deg is None:
        missing.append("FlipAngle")
    if missing:
        raise BadInputError(
            f"this sidecar lacks what the contrast of a {weighting or 'scan'} depends on: {', '.join(missing)}; "
            f"{_REMEDY}"
        )
    if sequence.tr_s is not None and (sequence.ti_s or 0.0) >= sequence.tr_s:
        raise BadInputError(f"InversionTime {sequence.ti_s:g} s is not below RepetitionTime {sequence.tr_s:g} s")
    if sequence.tr_s is not None and sequence.te_s is not None and sequence.te_s >= sequence.tr_s:
        raise BadInputError(f"EchoTime {sequence.te_s:g} s is not below RepetitionTime {sequence.tr_s:g} s")
