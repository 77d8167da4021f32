"""Acquisition: what a scan does to an object. Frozen, exact in JSON, with BIDS keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any, cast

from mrcore.data.grid import Triple
from mrcore.errors import BadInputError


@dataclass(frozen=True)
class AxisPsf:
    """Point spread along one voxel axis of a scan, as a product of transfer functions in k.

    Attributes:
        gaussian_fwhm_mm: full width at half maximum of a Gaussian blur; 0 for none.
        box_mm: width of a rectangular slice profile; 0 for none.
        truncate: keep only |k| <= 1 / (2 voxel), as a scan of that matrix size does (Gibbs ringing included).
        taper: part of the band, 0 to 1, over which a raised cosine (Tukey window) falls to 0 at its edge; 0 for no
            window, 1 for Hann's. Needs `truncate`.
        decay_at_edge: T2 decay along a centre-out echo train: the signal at the edge of the band is
            exp(-decay_at_edge) of that at k = 0; `fse_decay` computes it. 0 for none.
        band_mm: acquired voxel where finer ones were interpolated from it (zero filling): the band then ends at
            1 / (2 band_mm). 0, or less than the voxel: that of the voxel.

    Raises:
        BadInputError: a width or a decay that is negative or not finite, a taper outside 0 to 1, or one without
            truncation.
    """

    gaussian_fwhm_mm: float = 0.0
    box_mm: float = 0.0
    truncate: bool = True
    taper: float = 0.0
    decay_at_edge: float = 0.0
    band_mm: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= width < math.inf for width in (self.gaussian_fwhm_mm, self.box_mm, self.band_mm)):
            raise BadInputError(f"widths of a point spread are in mm, finite and not negative, got {self}")
        if not 0 <= self.taper <= 1:
            raise BadInputError(f"taper is a part of the band between 0 and 1, got {self.taper}")
        if self.taper > 0 and not self.truncate:
            raise BadInputError("a taper ends at the edge of a truncated band; set truncate=True or taper=0")
        if not 0 <= self.decay_at_edge < math.inf:
            raise BadInputError(
                f"decay_at_edge is train time over T2, finite and not negative, got {self.decay_at_edge}"
            )


Psf = tuple[AxisPsf, AxisPsf, AxisPsf]
DELTA_PSF: Psf = (AxisPsf(truncate=False),) * 3


def gaussian_psf(voxel_mm: Triple, fwhm_voxels: float = 1.0) -> Psf:
    """Return the default scan PSF: k-space truncation and a Gaussian of `fwhm_voxels` voxels on every axis."""
    return cast("Psf", tuple(AxisPsf(gaussian_fwhm_mm=fwhm_voxels * v) for v in voxel_mm))


def fse_decay(train_s: float, t2_s: float) -> float:
    """Return `decay_at_edge` of the phase-encoding axis of a fast spin echo that acquires k-space from the centre out.

    `train_s` is the time from the echo at k = 0 to that at the edge of the band, `t2_s` the T2 of the tissue. Both
    halves of k-space are taken to decay alike and linearly in time, which keeps the image real. In a linear ordering
    the echoes decay from one edge of k-space to the other: its centre is lowered by a constant, which belongs to the
    contrast, and the rest, exp(-a k), makes the image complex; that is left out.

    Raises:
        BadInputError: a train that is negative or not finite, a T2 that is not positive.
    """
    if not 0 <= train_s < math.inf:
        raise BadInputError(f"train_s is in seconds, finite and not negative, got {train_s}")
    if not t2_s > 0:
        raise BadInputError(f"t2_s is in seconds and positive, got {t2_s}")
    return train_s / t2_s


@dataclass(frozen=True)
class PulseSequence:
    """Pulse sequence: `weighting` is the BIDS suffix (T1w, T2w, FLAIR); times in s; None where unknown.

    `echo_train_length` counts the echoes of a fast spin echo or the excitations of an inversion-prepared train of
    gradient echoes (MPRAGE), and `echo_spacing_s` is the time between two of them.

    Raises:
        BadInputError: a time outside 0 to 100 s (milliseconds were given?), a flip angle outside 0 to 360 degrees,
            an echo train shorter than 1, or an echo spacing outside 0 to 1 s.
    """

    weighting: str
    tr_s: float | None = None
    te_s: float | None = None
    ti_s: float | None = None
    flip_deg: float | None = None
    echo_train_length: int | None = None
    echo_spacing_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("tr_s", "te_s", "ti_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise BadInputError(
                    f"{name} is in seconds and between 0 and 100, got {value}; were milliseconds meant?"
                )
        if self.flip_deg is not None and not 0 <= self.flip_deg <= 360:
            raise BadInputError(f"flip_deg is in degrees and between 0 and 360, got {self.flip_deg}")
        if self.echo_train_length is not None and self.echo_train_length < 1:
            raise BadInputError(f"echo_train_length must be at least 1, got {self.echo_train_length}")
        if self.echo_spacing_s is not None and not 0 < self.echo_spacing_s <= 1:
            raise BadInputError(
                f"echo_spacing_s is in seconds and between 0 and 1, got {self.echo_spacing_s}; were milliseconds meant?"
            )


@dataclass(frozen=True)
class Acquisition:
    """One scan: field, sequence, nominal voxel and PSF along the scan's voxel axes, noise, orientation.

    Attributes:
        field_t: main field, 0.001 to 20 T.
        voxel_mm: nominal voxel size along the scan's voxel axes, 0.05 to 50 mm.
        sequence: the pulse sequence.
        noise_sd: noise per real channel, in units of the object image that is scanned.
        psf: point spread along each voxel axis of the scan.
        slice_axis: world axis (`R`, `A` or `S`) nearest to the last, usually longest, voxel axis before the tilt:
            `S` is an axial scan.
        tilt_deg: right-handed turns of the scan's axes about the world's R, then A, then S, all three fixed in the
            world (extrinsic) and through the centre of the field of view; -180 to 180 degrees each.
        noise_fwhm_mm: colour of the noise: full width at half maximum, along each voxel axis of the scan, of the
            Gaussian that white noise was filtered with; 0 for white.
        n_channels: receive channels, combined by root sum of squares.

    Raises:
        BadInputError: a value outside its range.
    """

    field_t: float
    voxel_mm: Triple
    sequence: PulseSequence
    noise_sd: float = 0.0
    psf: Psf = field(default=DELTA_PSF)
    slice_axis: str = "S"
    tilt_deg: Triple = (0.0, 0.0, 0.0)
    noise_fwhm_mm: Triple = (0.0, 0.0, 0.0)
    n_channels: int = 1

    def __post_init__(self) -> None:
        if not 0.001 <= self.field_t <= 20:
            raise BadInputError(f"field_t is in tesla and between 0.001 and 20, got {self.field_t}")
        if len(self.voxel_mm) != 3 or not all(0.05 <= v <= 50 for v in self.voxel_mm):
            raise BadInputError(f"voxel_mm needs three sizes between 0.05 and 50 mm, got {self.voxel_mm}")
        if len(self.tilt_deg) != 3 or not all(-180 <= angle <= 180 for angle in self.tilt_deg):
            raise BadInputError(f"tilt_deg needs three angles between -180 and 180 degrees, got {self.tilt_deg}")
        if len(self.noise_fwhm_mm) != 3 or not all(0 <= width < math.inf for width in self.noise_fwhm_mm):
            raise BadInputError(f"noise_fwhm_mm needs three widths in mm, not negative, got {self.noise_fwhm_mm}")
        # Plain floats, whatever came from an array or a list: what JSON gives back is then equal.
        for name in ("voxel_mm", "tilt_deg", "noise_fwhm_mm"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if not 0 <= self.noise_sd < math.inf:
            raise BadInputError(f"noise_sd must be finite and not negative, got {self.noise_sd}")
        if len(self.psf) != 3 or not all(isinstance(axis, AxisPsf) for axis in self.psf):
            raise BadInputError(f"psf needs one AxisPsf per voxel axis, got {self.psf}")
        object.__setattr__(self, "psf", tuple(self.psf))
        if self.slice_axis not in ("R", "A", "S"):
            raise BadInputError(f"slice_axis must be R, A or S, got '{self.slice_axis}'")
        if not isinstance(self.n_channels, Integral) or self.n_channels < 1:
            raise BadInputError(f"n_channels is a whole number and at least 1, got {self.n_channels}")
        object.__setattr__(self, "n_channels", int(self.n_channels))


def to_json(acquisition: Acquisition) -> dict[str, Any]:
    """Return the acquisition as JSON values: BIDS keys for what BIDS names, the whole under `Acquisition`."""
    sequence = acquisition.sequence
    bids: dict[str, Any] = {
        "MagneticFieldStrength": acquisition.field_t,
        "RepetitionTime": sequence.tr_s,
        "EchoTime": sequence.te_s,
        "InversionTime": sequence.ti_s,
        "FlipAngle": sequence.flip_deg,
        "EchoTrainLength": sequence.echo_train_length,
    }
    return {key: value for key, value in bids.items() if value is not None} | {"Acquisition": asdict(acquisition)}


def from_json(values: Mapping[str, Any]) -> Acquisition:
    """Read what `to_json` wrote, exactly; what an older version did not write takes its default.

    Raises:
        BadInputError: the block `Acquisition` is missing or lacks a field.
    """
    block = values.get("Acquisition")
    if not isinstance(block, Mapping):
        raise BadInputError("no 'Acquisition' block in this JSON; it is written by mrkit beside every scan")
    try:
        psf = cast("Psf", tuple(AxisPsf(**axis) for axis in block["psf"]))
        rest = {k: v for k, v in block.items() if k not in ("psf", "sequence", "voxel_mm")}
        voxel_mm = cast("Triple", tuple(float(v) for v in block["voxel_mm"]))
        return Acquisition(psf=psf, sequence=PulseSequence(**block["sequence"]), voxel_mm=voxel_mm, **rest)
    except (KeyError, TypeError) as error:
        raise BadInputError(
            f"the 'Acquisition' block of this JSON is not complete or not of this version: {error}"
        ) from None
