"""The acquisitions (lines) of an ISMRMRD file: their head, and which of them belong to the image.

The bits are those of the format's `ISMRMRD_AcquisitionFlags` (ismrmrd.h), which counts them from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNTERS = (
    *("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition", "set"),
    "segment",
)
HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("measurement_uid", "<u4"),
        ("scan_counter", "<u4"),
        ("acquisition_time_stamp", "<u4"),
        ("physiology_time_stamp", "<u4", (3,)),
        *((name, "<u2") for name in ("number_of_samples", "available_channels", "active_channels")),
        ("channel_mask", "<u8", (16,)),
        *((name, "<u2") for name in ("discard_pre", "discard_post", "center_sample", "encoding_space_ref")),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        *((name, "<f4", (3,)) for name in ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position")),
        ("idx", [*((name, "<u2") for name in COUNTERS), ("user", "<u2", (8,))]),
        ("user_int", "<i4", (8,)),
        ("user_float", "<f4", (8,)),
    ]
)
"""Packed, as the format's own library needs it."""

NOISE, REVERSE = 19, 22
COMPRESSED = (53, 54, 55, 56)
_CALIBRATION, _CALIBRATION_AND_IMAGING = 20, 21
_NO_IMAGE: Mapping[str, int] = MappingProxyType(
    {
        "noise": NOISE,
        "navigator": 23,
        "phase correction": 24,
        "HP feedback": 26,
        "dummy": 27,
        "RT feedback": 28,
        "surface coil correction": 29,
        "phase stabilisation reference": 30,
        "phase stabilisation": 31,
    }
)


def flagged(flags: NDArray[Any], *bits: int) -> NDArray[np.bool_]:
    """Whether any of `bits` (counted from 1) is set."""
    mask = np.uint64(sum(1 << (bit - 1) for bit in bits))
    found: NDArray[np.bool_] = (np.asarray(flags, np.uint64) & mask) != 0
    return found


def kinds_of(flags: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Return which lines are of each kind that is no part of the image.

    Lines that calibrate parallel imaging are part of it where they are flagged as imaging as well; converters then set
    both flags, or only the second.
    """
    only_calibration = flagged(flags, _CALIBRATION) & ~flagged(flags, _CALIBRATION_AND_IMAGING)
    return {name: flagged(flags, bit) for name, bit in _NO_IMAGE.items()} | {"calibration": only_calibration}


def is_imaging(flags: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each line belongs to the image, whatever else its flags say (its place in loops, its direction)."""
    imaging: NDArray[np.bool_] = ~np.logical_or.reduce(list(kinds_of(flags).values()))
    return imaging


def notes_on_lines(flags: NDArray[Any]) -> tuple[str, ...]:
    """Return a note that counts what is no part of the image; noise, which is used, is not counted."""
    counts = {name: int(which.sum()) for name, which in kinds_of(flags).items() if name != "noise"}
    named = [f"{count} {name}" for name, count in counts.items() if count]
    return (f"acquisitions left out, by their flags: {', '.join(named)}",) if named else ()
