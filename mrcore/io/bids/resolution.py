"""How finely a scan was acquired, which its voxels do not tell: slice gaps and overlaps, interpolation in the plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from mrcore.data.acquisition import AxisPsf, Psf, gaussian_psf
from mrcore.data.grid import Grid, Triple
from mrcore.errors import BadInputError
from mrcore.io.bids.values import number, text
from mrcore.notes import Caution

SMALLEST_SHARE, LARGEST_SHARE = 0.2, 5.0
"""Least and most of a slice thickness relative to the distance between slices."""
GEOMETRY_KEYS = (
    "SliceThickness",
    "SpacingBetweenSlices",
    "AcquisitionMatrixPE",
    "ReconMatrixPE",
    "BaseResolution",
    "FrequencyEncodingSteps",
    "MRAcquisitionType",
)
"""Keys that hold for a scan's own voxels only, not for what is made of it."""
_ROUNDING = 0.02
_INTERPOLATED = 1.05


@dataclass(frozen=True)
class GivenResolution:
    """What a user says of a scan's resolution, in place of its sidecar.

    Attributes:
        slice_thickness_mm: along the axis of the slices.
        acquired_voxel_mm: acquired voxel along the other two axes, in the order of the file.

    Raises:
        BadInputError: a size that is not positive.
    """

    slice_thickness_mm: float | None = None
    acquired_voxel_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        sizes = [s for s in (self.slice_thickness_mm, *(self.acquired_voxel_mm or ())) if s is not None]
        if any(not 0.05 <= size <= 50 for size in sizes):
            raise BadInputError(f"slice thickness and acquired voxel are in mm, between 0.05 and 50, got {sizes}")


NOTHING_GIVEN = GivenResolution()


def stated_psf(
    values: Mapping[str, object], grid: Grid, given: GivenResolution = NOTHING_GIVEN
) -> tuple[Psf, tuple[str, ...]]:
    """Return the point spread along the voxel axes of a scan on `grid` by its sidecar, and what was taken from that.

    Each axis has a Gaussian of the acquired width (FWHM), and the band of the acquired voxel. Slices that leave gaps or
    overlap, and those of a 2-D acquisition, have a profile as wide as they are thick, and no band limit: what is
    between them was not seen. Where nothing is said all widths are one voxel, and there are no notes.

    The keys are those that dcm2niix writes: `SliceThickness` against the distance of the voxels (`SpacingBetweenSlices`
    tells the axis), `MRAcquisitionType`; `AcquisitionMatrixPE` against `ReconMatrixPE` and `PercentPhaseFOV` (all
    vendors), `PhaseResolution` or `PercentSampling` where these lack; `BaseResolution` (Siemens, UIH) or
    `FrequencyEncodingSteps` (others) along the readout. What contradicts the grid is not used, and a `Caution` says so.
    """
    doubt: list[str] = []
    try:
        facts = _Facts.of(values)
    except BadInputError as error:
        facts = _Facts()
        doubt.append(Caution(f"point spread: {error}; the sidecar's resolution is not used"))
    axis, thickness_mm, across = _slices(facts, grid, given)
    plane, within = _in_plane(facts, grid, axis, given)
    widths = [plane.get(a, s) for a, s in enumerate(grid.spacing_mm)]
    psf = list(gaussian_psf(cast("Triple", tuple(widths))))
    for a, width in plane.items():
        psf[a] = AxisPsf(gaussian_fwhm_mm=width, band_mm=width)
    if thickness_mm is not None:
        overlap = not facts.is_2d and thickness_mm > grid.spacing_mm[axis] * (1 + _ROUNDING)
        banded = AxisPsf(gaussian_fwhm_mm=thickness_mm, band_mm=thickness_mm)
        psf[axis] = banded if overlap else AxisPsf(gaussian_fwhm_mm=thickness_mm, truncate=False)
    notes = (*doubt, *across, *within)
    return (psf[0], psf[1], psf[2]), notes


@dataclass(frozen=True)
class _Facts:
    """What a sidecar says; None where it says nothing."""

    thickness_mm: float | None = None
    spacing_mm: float | None = None
    is_2d: bool = False
    phase_axis: int | None = None
    phase_lines: float | None = None
    phase_matrix: float | None = None
    phase_share: float = 1.0
    phase_fov_share: float = 1.0
    readout: float | None = None
    doubled: bool = False

    @classmethod
    def of(cls, values: Mapping[str, object]) -> _Facts:
        """Read the values; raises BadInputError for those that are none."""
        spacing = values.get("SpacingBetweenSlices")
        # The direction in which slices were stacked is in the sign, for some vendors.
        spacing = abs(spacing) if isinstance(spacing, int | float) else spacing
        sampling = (number(values, "PercentSampling") or 100.0) / 100
        return cls(
            thickness_mm=number(values, "SliceThickness"),
            spacing_mm=number({"SpacingBetweenSlices": spacing}, "SpacingBetweenSlices"),
            is_2d=text(values.get("MRAcquisitionType")).strip() == "2d",
            phase_axis=_phase_axis(values),
            phase_lines=number(values, "AcquisitionMatrixPE"),
            phase_matrix=number(values, "ReconMatrixPE"),
            phase_share=min(number(values, "PhaseResolution") or sampling, 1.0),
            phase_fov_share=min((number(values, "PercentPhaseFOV") or 100.0) / 100, 1.0),
            readout=number(values, "BaseResolution") or number(values, "FrequencyEncodingSteps"),
            doubled=values.get("Interpolation2D") in (True, 1),
        )


def _phase_axis(values: Mapping[str, object]) -> int | None:
    """Return the voxel axis of the phase encoding; dcm2niix stores rows along i, columns along j."""
    for key in ("PhaseEncodingDirection", "PhaseEncodingAxis"):
        if (letter := text(values.get(key))[:1]) in ("i", "j"):
            return "ij".index(letter)
    return {"row": 0, "col": 1}.get(text(values.get("InPlanePhaseEncodingDirectionDICOM")).strip())


def _slices(facts: _Facts, grid: Grid, given: GivenResolution) -> tuple[int, float | None, tuple[str, ...]]:
    """Return the axis of the slices, their thickness where it (or a 2-D acquisition) is known to matter, and notes."""
    sizes = grid.spacing_mm
    axis = _slice_axis(facts, sizes)
    if given.slice_thickness_mm is not None:
        axis = _coarsest(sizes) if axis is None else axis
        thickness_mm, source = given.slice_thickness_mm, "as given"
        if not SMALLEST_SHARE <= thickness_mm / sizes[axis] <= LARGEST_SHARE:
            raise BadInputError(
                f"slices of {thickness_mm:g} mm do not go with a distance of {sizes[axis]:.4g} mm between them (axis "
                f"{'ijk'[axis]} of the file); give the slice thickness in mm"
            )
    elif facts.thickness_mm is None:
        axis = 2 if axis is None else axis
        return axis, sizes[axis] if facts.is_2d else None, (_profile(sizes[axis]),) if facts.is_2d else ()
    else:
        thickness_mm, source = facts.thickness_mm, "SliceThickness in its sidecar"
        why = _mismatch(facts, sizes, axis)
        if axis is None or why:
            text_ = f"point spread: {why}: SliceThickness {thickness_mm:g} mm is not used; give --slice-thickness"
            return _coarsest(sizes), None, (Caution(text_),)
    difference = thickness_mm / sizes[axis] - 1
    if abs(difference) <= _ROUNDING:
        return axis, sizes[axis] if facts.is_2d else None, (_profile(sizes[axis]),) if facts.is_2d else ()
    what = "gaps" if difference < 0 else "overlaps"
    return axis, thickness_mm, (
        f"point spread: slices of {thickness_mm:.4g} mm every {sizes[axis]:.4g} mm, {what} of "
        f"{abs(thickness_mm - sizes[axis]):.3g} mm ({source})",
    )  # fmt: skip


def _profile(thickness_mm: float) -> str:
    return f"point spread: slices of {thickness_mm:.4g} mm without a band limit across (a 2-D acquisition)"


def _slice_axis(facts: _Facts, sizes: Triple) -> int | None:
    """Return the voxel axis along which slices are stacked; None where the sidecar's spacing is that of no axis."""
    if facts.spacing_mm is None:
        return _coarsest(sizes)
    # The tag is the distance of centres; some files hold the gap instead.
    for distance_mm in (facts.spacing_mm, facts.spacing_mm + (facts.thickness_mm or 0.0)):
        for axis in (2, 1, 0):
            if abs(sizes[axis] / distance_mm - 1) <= _ROUNDING:
                return axis
    return None


def _coarsest(sizes: Triple) -> int:
    """Return the axis of clearly the largest voxel size, else the last, along which converters stack slices."""
    axis = max(range(3), key=lambda a: sizes[a])
    return axis if all(sizes[axis] > 1.2 * s for a, s in enumerate(sizes) if a != axis) else 2


def _mismatch(facts: _Facts, sizes: Triple, axis: int | None) -> str:
    """Say why a sidecar's slice thickness does not describe this grid; empty where it does."""
    listed = " x ".join(f"{s:.4g}" for s in sizes)
    if axis is None:
        return f"SpacingBetweenSlices {facts.spacing_mm:g} mm is the voxel of no axis ({listed} mm), resampled since"
    if facts.thickness_mm is None:
        return ""
    share = facts.thickness_mm / sizes[axis]
    # Without a spacing a thickness that is far from the voxel's may as well be that of an image resampled since.
    least, most = (SMALLEST_SHARE, LARGEST_SHARE) if facts.spacing_mm is not None else (0.45, 2.1)
    return "" if least <= share <= most else f"it does not go with voxels of {listed} mm"


def _in_plane(facts: _Facts, grid: Grid, axis: int, given: GivenResolution) -> tuple[dict[int, float], tuple[str, ...]]:
    """Return the acquired width of the axes along which it is larger than the voxel, and notes."""
    rows = [a for a in range(3) if a != axis]
    sizes = grid.spacing_mm
    doubt: list[str] = []
    if given.acquired_voxel_mm is not None:
        acquired, source = dict(zip(rows, given.acquired_voxel_mm, strict=True)), "as given"
    elif _slice_axis(facts, sizes) is None or _mismatch(facts, sizes, axis):
        return {}, ()  # resampled since: the matrix is another
    elif axis != 2 or facts.phase_axis is None:
        # Which of the two axes was phase-encoded is not known: only a factor on both could be used.
        both = facts.readout if facts.phase_lines is None else None
        acquired = {a: sizes[a] * _readout_factor(facts, grid, a) for a in rows} if both and axis == 2 else {}
        source = "BaseResolution in its sidecar"
    else:
        phase = facts.phase_axis
        read = 1 - phase
        acquired = {read: sizes[read] * _readout_factor(facts, grid, read)}
        acquired[phase] = _phase_mm(facts, grid, phase, acquired[read])
        source = "acquired and reconstructed matrix in its sidecar"
        if facts.readout is None and acquired[phase] > _INTERPOLATED * sizes[phase]:
            doubt.append(Caution(_NO_READOUT))
    wide = {a: mm for a, mm in acquired.items() if mm > _INTERPOLATED * sizes[a]}
    if not wide:
        return {}, ()
    listed = " x ".join(f"{acquired[a]:.3g}" for a in rows)
    voxel = " x ".join(f"{sizes[a]:.3g}" for a in rows)
    return wide, (f"point spread: {listed} mm in plane, interpolated to {voxel} mm ({source})", *doubt)


_NO_READOUT = (
    "point spread: the sidecar does not say how finely the readout was acquired: taken as one voxel; give "
    "--acquired-voxel"
)


def _readout_factor(facts: _Facts, grid: Grid, axis: int) -> float:
    """Return the acquired over the reconstructed voxel along the readout; 1 where it is not known."""
    if facts.readout is None:
        return 1.0
    if facts.doubled:
        return 2.0
    whole = facts.phase_axis is None or facts.phase_matrix in (None, float(grid.shape[1 - axis]))
    factor = grid.shape[axis] / facts.readout
    # Of an image that was cropped since, only the usual doubling can be told.
    return factor if factor > _INTERPOLATED and (whole or abs(factor - 2) <= _ROUNDING) else 1.0


def _phase_mm(facts: _Facts, grid: Grid, axis: int, readout_mm: float) -> float:
    """Return the acquired voxel along the phase encoding."""
    if facts.phase_lines is None:
        return max(grid.spacing_mm[axis], readout_mm / facts.phase_share)
    matrix = facts.phase_matrix or float(grid.shape[axis])
    fov_mm = grid.fov_mm
    # GE and Philips fill a partial field of view up to a square image: the lines cover the part alone.
    square = abs(fov_mm[axis] / fov_mm[1 - axis] - 1) <= _ROUNDING
    covered = facts.phase_fov_share if square else 1.0
    return max(grid.spacing_mm[axis], grid.spacing_mm[axis] * matrix * covered / facts.phase_lines)
