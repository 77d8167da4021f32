"""Inspecting an image file: what it is, and every reason why it may be unusable."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from mrcore.data.grid import Affine, Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, MrkitError
from mrcore.io.bids.checks import sidecar_problems
from mrcore.io.bids.resolution import GEOMETRY_KEYS, stated_psf
from mrcore.io.nifti_read import ImageFile, is_slice, read_image, slice_problem
from mrcore.io.sidecar import sidecar_path
from mrcore.io.volumes import sidecar_and_warnings
from mrcore.notes import Problem, Severity, cautions
from mrcore.scans import Scan, examine
from mrcore.segmentation.brainmask import is_skull_stripped
from ulfsim.measurement.noise import scan_noise

_PERCENTILES = (1, 25, 50, 75, 99)
_LOW_FIELD_T = 0.2


@dataclass(frozen=True)
class PlaceFacts:
    """Where the voxels are.

    Attributes:
        shape: voxels along each axis, as stored.
        voxel_mm: size along each voxel axis.
        fov_mm: field of view along each voxel axis, from edge to edge.
        orientation: directions of the voxel axes, such as RAS.
        obliquity_deg: largest angle between a voxel axis and its nearest world axis.
        units: of length, as the header says.
        sform_code: NIfTI code; None for MGH.
        qform_code: NIfTI code; None for MGH.
        disagreement_mm: between sform and qform at the worst corner; None unless both are set.
    """

    shape: tuple[int, ...]
    voxel_mm: Triple
    fov_mm: Triple
    orientation: str
    obliquity_deg: float
    units: str
    sform_code: int | None
    qform_code: int | None
    disagreement_mm: float | None


@dataclass(frozen=True)
class IntensityFacts:
    """What the voxels hold, after slope and intercept; noise and SNR are those of the magnitude made of them.

    Attributes:
        stored_dtype: numpy name of the stored type.
        slope: stored number to intensity.
        intercept: stored number to intensity.
        low: lowest value.
        high: highest value.
        percentiles: value at each of these percentages of the voxels that are not zero.
        zero_share: part of the voxels that are exactly zero.
        noise_sd: estimate per real channel; None where none can be made.
        noise_method: how it was made, or why not.
        snr: median of the bright half of the object over `noise_sd`.
        is_map: whether this is or looks like labels, a mask, probabilities or a quantitative map.
    """

    stored_dtype: str
    slope: float
    intercept: float
    low: float
    high: float
    percentiles: Mapping[int, float]
    zero_share: float
    noise_sd: float | None
    noise_method: str
    snr: float | None
    is_map: bool


@dataclass(frozen=True)
class FileReport:
    """What `inspect_file` found; a part is None where the file does not let it be known.

    Attributes:
        path: the file.
        format: NIfTI-1, NIfTI-2 or MGH; None when it is none of them.
        sha256: of the file's bytes.
        place: where the voxels are.
        intensity: what the voxels hold.
        kind: what sort of scan this looks like, in words.
        skull_stripped: whether the skull has been removed.
        resolution: how the scan was acquired where its sidecar says more than the voxels: gaps, interpolation.
        sidecar: keys of the JSON file beside the image.
        problems: everything found, errors first.
    """

    path: Path
    format: str | None = None
    sha256: str | None = None
    place: PlaceFacts | None = None
    intensity: IntensityFacts | None = None
    kind: str = "unknown"
    skull_stripped: bool | None = None
    resolution: tuple[str, ...] = ()
    sidecar: Mapping[str, object] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it can serve as a scan: nothing fatal was found."""
        return not any(problem.fatal for problem in self.problems)


def inspect_file(path: Path) -> FileReport:
    """Describe an image file and list every problem that it has as a scan, as all verbs see them, errors first.

    Damaged files make a report, not an exception.

    Raises:
        BadInputError: there is no such file.
    """
    path = Path(path)
    if not path.exists() and not path.is_symlink():
        raise BadInputError(f"{path}: no such file")
    try:
        image = read_image(path, allow_slice=True)
    except MrkitError as error:
        return FileReport(path, problems=(Problem(str(error)),))
    problems = list(image.problems)
    sidecar, doubtful = sidecar_and_warnings(path)
    problems += [Problem(text, Severity.CAUTION) for text in doubtful]
    place = _place(image)
    problems += sidecar_problems(sidecar, sidecar_path(path).name)
    resolution: tuple[str, ...] = ()
    if place is not None and not set(GEOMETRY_KEYS).isdisjoint(sidecar):
        _, notes = stated_psf(sidecar, image.grid)
        doubts = cautions(notes)
        problems += [Problem(f"sidecar {sidecar_path(path).name}: {doubt}", Severity.CAUTION) for doubt in doubts]
        resolution = tuple(note for note in notes if note not in doubts)
    stripped, intensity, found = None, None, None
    if image.data is not None and not any(problem.fatal for problem in problems):
        found = examine(Volume(torch.from_numpy(image.data), image.grid, sidecar))
        intensity = _intensity(image, image.data, found)
        problems += found.problems
        if not any(problem.fatal for problem in found.problems):
            stripped = is_skull_stripped(found.volume)
    if is_slice(image.shape):
        problems.append(_slice_problem(image.shape, is_map=found is not None and found.is_map))
    problems.sort(key=lambda problem: list(Severity).index(problem.severity))
    return FileReport(
        path=path,
        format=image.format,
        sha256=image.sha256,
        place=place,
        intensity=intensity,
        kind=_kind(place, intensity, sidecar),
        skull_stripped=stripped,
        resolution=resolution,
        sidecar=MappingProxyType(dict(sidecar)),
        problems=tuple(problems),
    )


def obliquity_deg(affine: Affine) -> float:
    """Return the largest angle between a voxel axis and the world axis nearest to it."""
    return float(np.degrees(np.abs(nib.affines.obliquity(affine)).max()))


def _place(image: ImageFile) -> PlaceFacts | None:
    try:
        grid = image.grid
    except BadInputError:
        return None
    return PlaceFacts(
        shape=image.shape,
        voxel_mm=grid.spacing_mm,
        fov_mm=grid.fov_mm,
        orientation=grid.orientation,
        obliquity_deg=obliquity_deg(grid.affine),
        units=image.units,
        sform_code=image.sform_code,
        qform_code=image.qform_code,
        disagreement_mm=image.disagreement_mm,
    )


def _slice_problem(shape: tuple[int, ...], *, is_map: bool) -> Problem:
    """Return a note for maps and masks, which `quantify` makes and takes; scans of one slice serve nothing."""
    text = "one slice: mrkit quantify takes it as a mask, every other command needs a whole stack of slices"
    return Problem(text, Severity.NOTE) if is_map else slice_problem(shape)


def _intensity(image: ImageFile, data: NDArray[np.float32], found: Scan) -> IntensityFacts:
    content = data[data != 0]
    values = np.percentile(content, _PERCENTILES) if content.size else np.zeros(len(_PERCENTILES))
    noise_sd, method, snr = found.noise_sd, found.noise_method, found.snr
    if noise_sd is not None:
        scan = found.volume.data
        bright = scan >= scan[scan > 0].mean()
        with suppress(BadInputError):  # too little of it: what was found before stays
            noise = scan_noise(Volume(scan, image.grid), bright)
            noise_sd, method = noise.sd, "; ".join(noise.notes)
            snr = float(scan[bright].median()) / noise.sd if noise.sd > 0 else None
    return IntensityFacts(
        stored_dtype=image.stored_dtype,
        slope=image.slope,
        intercept=image.intercept,
        low=float(data.min()),
        high=float(data.max()),
        percentiles={p: float(v) for p, v in zip(_PERCENTILES, values, strict=True)},
        zero_share=1 - content.size / data.size,
        noise_sd=noise_sd,
        noise_method=method,
        snr=snr,
        is_map=found.is_map,
    )


def _kind(place: PlaceFacts | None, facts: IntensityFacts | None, sidecar: Mapping[str, object]) -> str:
    """Return what sort of scan this looks like: by the sidecar's field strength, else by voxel size."""
    if place is None:
        return "unknown"
    if isinstance(unit := sidecar.get("Units"), str):
        return f"quantitative map in {unit}"
    if facts is not None and facts.is_map:
        return "labels, mask or probabilities"
    field_t = sidecar.get("MagneticFieldStrength")
    low, high = min(place.voxel_mm), max(place.voxel_mm)
    snr = "" if facts is None or facts.snr is None else f", SNR about {facts.snr:.0f}"
    if isinstance(field_t, int | float) and 0 < field_t < 20:
        name = "ultra-low-field" if field_t < _LOW_FIELD_T else "high-field"
        return f"{name} scan ({field_t:g} T in its sidecar{snr})"
    if low >= 1.2 and high >= 4:
        return f"like an ultra-low-field scan (coarse voxels, thick slices{snr})"
    if high >= 2.5 and high / low >= 2:
        return f"like a high-field 2-D scan (fine in the plane, thick slices{snr})"
    if high <= 1.6:
        return f"like a high-field 3-D scan (small voxels{snr})"
    return f"not clear: high-field or ultra-low-field (say the field in the sidecar's MagneticFieldStrength{snr})"
