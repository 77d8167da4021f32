"""The protocol of a simulation, changed as the user asks: other voxels, orientation, noise, SNR."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import cast

from mrcore.data.acquisition import Acquisition, AxisPsf, Psf
from mrcore.data.grid import Triple
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import LARGEST_SHARE, SMALLEST_SHARE
from mrcore.io.bids.sequence import sequence_from_sidecar
from mrcore.io.sidecar import read_json
from mrcore.signals.tissue import TISSUE_TABLE
from mrcore.signals.tissue_table import load_tissue_table
from ulfsim.protocols.bloch import bloch_preset
from ulfsim.protocols.presets import PRESETS, Preset


class Gauge(Enum):
    """What fixes the direction that contrasts leave free in a calibration."""

    ABSOLUTE = "absolute"
    """The SNR of every tissue."""
    PRIOR = "prior"
    """Contrasts, with the gains nearest to the ratios of the Bloch signals."""
    NONE = "none"
    """Contrasts alone, the smallest gains, applied as published (HULFSynth): for comparison."""


@dataclass(frozen=True)
class Changes:
    """What to change in a protocol; None keeps what it says.

    Attributes:
        voxel_mm: nominal voxel along the scan's axes, the slice last; widths of the PSF change in proportion.
        slice_thickness_mm: width of the slice profile where it is not the distance between slices, which is the
            voxel's last size: slices with gaps, or overlapping ones. They are not band-limited across.
        slice_axis: world axis (R, A or S) nearest to the slice axis.
        tilt_deg: rotation of the scan's axes about R, then A, then S.
        noise_fwhm_mm: FWHM of the kernel that colours the noise; 0 white.
        n_channels: receive channels, combined by root sum of squares.
        snr: SNR per tissue; tissues that are not named keep theirs.
    """

    voxel_mm: Triple | None = None
    slice_thickness_mm: float | None = None
    slice_axis: str | None = None
    tilt_deg: Triple | None = None
    noise_fwhm_mm: Triple | None = None
    n_channels: int | None = None
    snr: Mapping[str, float] | None = None


NO_CHANGES = Changes()


def bloch_protocol(
    path: Path, field_t: float | None, voxel_mm: Triple, wm_snr: float, tissue_table: Path | None = None
) -> Preset:
    """Return the preset of the sequence in a BIDS sidecar, by the Bloch equations; `tissue_table` is a user's file.

    Raises:
        BadInputError: a file that cannot be read, a sidecar that lacks what the contrast depends on, or no field.
    """
    values = read_json(path)
    found = sequence_from_sidecar(values)
    field_t = field_t or found.field_t
    if field_t is None:
        raise BadInputError(f"{path} names no MagneticFieldStrength; give the field with --field, in tesla")
    table = TISSUE_TABLE if tissue_table is None else load_tissue_table(tissue_table)
    preset = bloch_preset(found.sequence, field_t, voxel_mm, wm_snr, table=table)
    return replace(preset, source="; ".join((f"sequence of {path.name}", *found.notes, preset.source)))


def preset_named(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        BadInputError: there is none of that name.
    """
    if name not in PRESETS:
        raise BadInputError(f"no preset '{name}'; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def changed(preset: Preset, changes: Changes) -> Preset:
    """Return `preset` with `changes`, which its source then names.

    Raises:
        BadInputError: values out of range, or an SNR of a tissue that the preset does not have.
    """
    given = {name: value for name, value in vars(changes).items() if value is not None}
    if not given:
        return preset
    unknown = sorted(set(changes.snr or {}) - set(preset.snr))
    if unknown:
        raise BadInputError(f"no tissue {', '.join(unknown)} in the protocol; it has {', '.join(preset.snr)}")
    acquisition = preset.acquisition
    if changes.voxel_mm is not None:
        acquisition = with_voxel(acquisition, changes.voxel_mm)
    if changes.slice_thickness_mm is not None:
        acquisition = with_slice_thickness(acquisition, changes.slice_thickness_mm)
    fields = ("slice_axis", "tilt_deg", "noise_fwhm_mm", "n_channels")
    acquisition = replace(acquisition, **{name: given[name] for name in fields if name in given})
    listed = ", ".join(
        f"{name} {dict(value) if isinstance(value, Mapping) else value}" for name, value in given.items()
    )
    snr = {**preset.snr, **(changes.snr or {})}
    return Preset(preset.name, acquisition, snr, f"{preset.source}; changed by the user: {listed}")


def with_voxel(acquisition: Acquisition, voxel_mm: Triple) -> Acquisition:
    """Return the acquisition with another nominal voxel, whose PSF is as wide in voxels as before."""
    factors = [new / old for new, old in zip(voxel_mm, acquisition.voxel_mm, strict=True)]
    psf = tuple(_scaled(axis, factor) for axis, factor in zip(acquisition.psf, factors, strict=True))
    return replace(acquisition, voxel_mm=voxel_mm, psf=cast("Psf", psf))


def with_slice_thickness(acquisition: Acquisition, thickness_mm: float) -> Acquisition:
    """Return the acquisition with slices of another thickness at the same distance.

    Raises:
        BadInputError: a thickness that no slice has.
    """
    spacing_mm = acquisition.voxel_mm[2]
    if not SMALLEST_SHARE <= thickness_mm / spacing_mm <= LARGEST_SHARE:
        raise BadInputError(
            f"slices of {thickness_mm:g} mm do not go with a distance of {spacing_mm:g} mm between them; the thickness "
            f"is in mm, from {SMALLEST_SHARE:g} to {LARGEST_SHARE:g} of the distance"
        )
    if math.isclose(thickness_mm, spacing_mm, rel_tol=1e-3):
        return acquisition
    first, second, across = acquisition.psf
    wide = _scaled(across, thickness_mm / spacing_mm)
    return replace(acquisition, psf=(first, second, replace(wide, truncate=False, taper=0.0, band_mm=0.0)))


def _scaled(psf: AxisPsf, factor: float) -> AxisPsf:
    widths = {name: getattr(psf, name) * factor for name in ("gaussian_fwhm_mm", "box_mm", "band_mm")}
    return replace(psf, **widths)
