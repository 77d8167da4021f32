"""The verbs: `simulate_ulf` and `superresolve`. Objects in, objects out; files are the command line's business."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from inr.baselines import cubic, tikhonov
from inr.fit import FitSettings, Resegment, fit
from mrcore.acquisition import Acquisition, Psf, from_json, gaussian_psf
from mrcore.brainmask import is_skull_stripped, require_reliable, stripped_mask, template_brain_mask
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.forward import imaging_operator, predict
from mrcore.grid import Grid
from mrcore.linop import LinearOp
from mrcore.noise import NoiseEstimate, estimate_noise, rician_moments
from mrcore.resample import resample
from mrcore.segment import Segmenter
from mrcore.solve import Solution
from mrcore.volume import TissueMap, Volume, require_same_grid
from mrkit.lattice import foreground_of, inner, lattice_for, touches_edge
from mrkit.segmenters import segmenter_named, weighting_of
from mrkit.template import load_template
from ulfsim.calibrate import Calibration
from ulfsim.measure import measure, tissue_cores
from ulfsim.plan import with_margin
from ulfsim.presets import PRESETS, Preset, preset_like, with_wm_snr
from ulfsim.simulate import calibrated_simulation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """A simulated scan: `scan` on its own grid, `truth` (the noise-free object in the scan's contrast), `tissues` and
    `mask` on the source's grid, and how it was made.
    """  # noqa: D205  the summary names every field

    scan: Volume
    truth: Volume
    tissues: TissueMap
    mask: Tensor
    acquisition: Acquisition
    calibration: Calibration
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SuperResolved:
    """A super-resolved scan.

    `image`, `tissues` and `cubic` (for comparison) lie on the output grid; `residual_z`, (scan - expected) / sd under
    Rician noise, on the scan's. `noise_sd` is per real channel, in units of the scan. `solution` says how the fit
    ended.
    """

    image: Volume
    tissues: TissueMap
    cubic: Volume
    residual_z: Volume
    noise_sd: float
    solution: Solution
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan ready for a fit: intensities relative to `scale`, lattice, operator, start, foreground, tissues.

    Every method that is compared starts from these.
    """

    scan: Volume
    scale: float
    noise: NoiseEstimate
    lattice: Grid
    output_grid: Grid
    operator: LinearOp
    start: Tensor
    foreground: Tensor
    tissues: TissueMap
    resegment: Resegment | None
    notes: tuple[str, ...]

    @property
    def noise_sd(self) -> float:
        """Noise per real channel, relative to `scale`."""
        return self.noise.sd / self.scale


def simulate_ulf(
    volume: Volume,
    *,
    preset: str = "hyperfine-t1w",
    like: Volume | None = None,
    tissues: TissueMap | None = None,
    mask: Tensor | None = None,
    segmenter: Segmenter | None = None,
    wm_snr: float | None = None,
    seed: int = 0,
) -> SimulatedScan:
    """Simulate an ultra-low-field scan of a high-field `volume`.

    Args:
        volume: magnitude image, with or without its skull.
        preset: name in `ulfsim.presets.PRESETS`; not used with `like`.
        like: a real scan whose voxel size, SNR and contrast are taken over.
        tissues: tissue maps on the grid of `volume`; found by `segmenter` otherwise.
        mask: brain mask (bool, X, Y, Z); found otherwise.
        segmenter: what finds tissues; mrkit's HMRF-EM by default.
        wm_snr: SNR of white matter, scaling all targets.
        seed: of the noise.

    Raises:
        BadInputError: an unknown preset, or an image that cannot be used.
        GridMismatchError: mask or tissues on another grid.
    """
    if like is None and preset not in PRESETS:
        raise BadInputError(f"no preset '{preset}'; there are {', '.join(PRESETS)}")
    notes: list[str] = []
    volume = _usable(volume)
    tissues = _tissues(volume, tissues, mask, segmenter, notes)
    chosen = PRESETS[preset] if like is None else _preset_like(like, notes)
    if wm_snr is not None:
        chosen = with_wm_snr(chosen, wm_snr)
    source, seen = volume, tissues
    margin_mm = max(chosen.acquisition.voxel_mm)
    if touches_edge(volume, margin_mm):
        # The lattice is one period of the operator: what lies at one edge would be blurred into the opposite one.
        source, seen = with_margin(volume, tissues, margin_mm)
        notes.append(f"the object reaches the edge of its field of view: {margin_mm:g} mm of zeros were put around it")
    calibration, made = calibrated_simulation(source, seen, chosen, seed)
    notes += [*made.notes, *calibration.warnings, f"protocol: {chosen.source}"]
    # A brain over noisy air cannot be told from a head by its looks.
    scan = Volume(made.scan.data, made.scan.grid, {**made.scan.meta, "SkullStripped": is_skull_stripped(volume)})
    return SimulatedScan(
        scan,
        inner(made.truth, volume.grid),
        tissues,
        tissues.mask,
        made.acquisition,
        calibration,
        tuple(dict.fromkeys(notes)),
    )


def superresolve(
    scan: Volume,
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
) -> SuperResolved:
    """Fit image and tissues of this subject to `scan` and render them at `voxel_mm`.

    Args:
        scan: magnitude scan; where its `meta` holds an `Acquisition`, the PSF is taken from there, else it is a
            Gaussian of one voxel with truncation.
        voxel_mm: isotropic output voxel; the output covers the scan's field of view along its axes.
        mask: brain mask (bool) on the scan's grid; found otherwise.
        tissues: initial tissue maps on the scan's grid; found by `segmenter` otherwise.
        segmenter: what finds the initial tissues; mrkit's HMRF-EM by default.
        seed: of the field's first state.
        settings: of the fit.

    Raises:
        BadInputError: a scan that cannot be used, or whose brain cannot be found.
        GridMismatchError: mask or tissues on another grid.
    """
    scan = _usable(scan)
    ready = prepare(scan, voxel_mm=voxel_mm, mask=mask, tissues=tissues, segmenter=segmenter)
    fitted = fit(
        ready.scan.data,
        ready.operator,
        ready.lattice,
        ready.noise_sd,
        ready.start,
        ready.foreground,
        ready.tissues,
        seed,
        settings,
        ready.resegment,
    )
    solution = fitted.solution
    notes = list(ready.notes)
    if not solution.converged:
        notes.append(f"the fit had not settled: {solution.message}")
    notes += _scarce(fitted.prob, ready.tissues.names)
    kept = {key: value for key, value in scan.meta.items() if key not in ("Acquisition", "Simulation")}
    image = inner(Volume(fitted.image * ready.scale, ready.lattice, kept), ready.output_grid)
    prob = torch.stack([inner(Volume(p, ready.lattice), ready.output_grid).data for p in fitted.prob])
    expected, sd = rician_moments(predict(ready.operator, fitted.image), ready.noise_sd)
    return SuperResolved(
        image,
        TissueMap(prob, ready.tissues.names, ready.output_grid),
        cubic(Volume(scan.data, scan.grid, kept), ready.output_grid),
        Volume((ready.scan.data - expected) / sd, scan.grid, kept),
        ready.noise.sd,
        replace(solution, x=image.data),
        tuple(notes),
    )


def prepare(
    scan: Volume,
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
) -> PreparedScan:
    """Do all that precedes a fit: brain, tissues, noise, lattice, operator and a Tikhonov start.

    Arguments and errors are those of `superresolve`.
    """
    if not 0.2 <= voxel_mm <= max(scan.grid.spacing_mm):
        raise BadInputError(
            f"the output voxel must lie between 0.2 mm and the scan's largest voxel "
            f"({max(scan.grid.spacing_mm):.3g} mm), got {voxel_mm} mm"
        )
    scan = _usable(scan)
    notes: list[str] = []
    given = tissues is not None
    segmenter = segmenter or _own_segmenter(scan)
    seen = _tissues(scan, tissues, mask, segmenter, notes)
    cores, _ = tissue_cores(seen)
    noise = estimate_noise(scan.data, seen.mask, cores[seen.names.index("WM")])
    notes.append(noise.message)
    scale = max(float(scan.data[core].mean()) for core, name in zip(cores, seen.names, strict=True) if name != "CSF")
    relative = Volume(scan.data / scale, scan.grid, scan.meta)
    # A noise-free scan would make the data term infinitely stiff.
    noise_sd = max(noise.sd / scale, 1e-3)
    if noise.sd / scale < noise_sd:
        notes.append("noise below a thousandth of WM is taken as that much")
    lattice, output_grid = lattice_for(relative, voxel_mm)
    operator = imaging_operator(lattice, scan.grid, _psf(scan, notes))
    begin = cubic(relative, lattice).data
    on_fine = _on_lattice(seen, lattice)
    foreground = foreground_of(begin, on_fine.mask, noise_sd, lattice)
    start = tikhonov(operator, relative.data, noise_sd, begin, lattice.spacing_mm).x.clamp_min(0)

    def resegment(image: Tensor) -> Tensor:
        return segmenter(Volume(image, lattice), on_fine.mask).tissues.prob

    # Tissues are finer where the Tikhonov image is segmented than where those of the thick slices are interpolated.
    first = on_fine if given else TissueMap(resegment(start), seen.names, lattice)
    return PreparedScan(
        relative,
        scale,
        replace(noise, sd=noise_sd * scale),
        lattice,
        output_grid,
        operator,
        start,
        foreground,
        first,
        None if given else resegment,
        tuple(notes),
    )


def _on_lattice(tissues: TissueMap, lattice: Grid) -> TissueMap:
    """Interpolate tissue maps linearly; they sum to one inside the mask."""
    prob = torch.stack([resample(Volume(p, tissues.grid), lattice, order=1).data for p in tissues.prob])
    total = prob.sum(0)
    return TissueMap(torch.where(total > 0.5, prob / total.clamp_min(1e-6), 0.0), tissues.names, lattice)


def find_brain(volume: Volume) -> tuple[Tensor, str]:
    """Return a brain mask (bool, X, Y, Z) and how it was found: stripped images as they are, heads by the template.

    Raises:
        BadInputError: a head on which the template does not fit.
        MissingExtraError: a head, without nilearn's template.
    """
    if is_skull_stripped(volume):
        return stripped_mask(volume), "the image is skull-stripped: its own outline is the brain mask"
    template = load_template()
    found = require_reliable(template_brain_mask(volume, template.t1, Volume(template.mask.float(), template.t1.grid)))
    return found.mask, f"brain mask by {found.method}: {found.message}"


def _usable(volume: Volume) -> Volume:
    """Return the image in float32, the precision of all that follows; refuse what shows nothing."""
    if volume.data.is_complex():
        raise BadInputError("this needs a magnitude image, got complex data; take its magnitude first")
    data = volume.data.detach().float()
    low, high = float(data.min()), float(data.max())
    if high <= max(low, 0.0):
        raise BadInputError(f"the image has nothing to show: its values run from {low:.4g} to {high:.4g}")
    return Volume(data, volume.grid, volume.meta)


def _scarce(prob: Tensor, names: tuple[str, ...]) -> list[str]:
    """Return a note for each tissue (T, X, Y, Z) that is the likeliest in less than 1 % of the brain."""
    labels = prob.argmax(0)[prob.sum(0) > 0.5]
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    return [
        f"{name} makes up {100 * count / len(labels):.2g} % of the brain found: do not trust the tissues"
        for name, count in zip(names, counts, strict=True)
        if count < 0.01 * len(labels)
    ]


def _tissues(
    volume: Volume, tissues: TissueMap | None, mask: Tensor | None, segmenter: Segmenter | None, notes: list[str]
) -> TissueMap:
    if tissues is not None:
        require_same_grid(volume.grid, tissues.grid, "the image and its tissue maps")
        if "WM" not in tissues.names:
            raise BadInputError(f"tissue maps need one named 'WM', got {', '.join(tissues.names)}")
        if mask is None:
            notes.append("tissues: given maps")
            return tissues
        if mask.dtype != torch.bool or mask.shape != volume.data.shape:
            raise GridMismatchError(
                f"the mask must be boolean of shape {volume.grid.shape}, got {mask.dtype} {tuple(mask.shape)}"
            )
        notes.append("tissues: given maps, inside the given mask")
        return TissueMap(tissues.prob * mask, tissues.names, tissues.grid)
    if mask is None:
        mask, how = find_brain(volume)
        notes.append(how)
    logger.info("segmenting tissues")
    found = (segmenter or _own_segmenter(volume))(volume, mask)
    notes.append(f"tissues: {found.method}; {found.message}")
    return found.tissues


def _own_segmenter(volume: Volume) -> Segmenter:
    return segmenter_named("mrkit", _weighting(volume))


def _weighting(volume: Volume) -> str:
    return weighting_of(volume, Path(str(volume.meta.get("SourceFile", ""))).name.split(".")[0])


def _preset_like(like: Volume, notes: list[str]) -> Preset:
    tissues = _tissues(like, None, None, None, notes)
    stats = measure(like, tissues)
    notes += [f"reference scan: {note}" for note in stats.notes]
    return preset_like(like, stats, _weighting(like))


def _psf(scan: Volume, notes: list[str]) -> Psf:
    if "Acquisition" in scan.meta:
        acquisition = from_json(scan.meta)
        if all(abs(a - b) < 1e-3 * b for a, b in zip(acquisition.voxel_mm, scan.grid.spacing_mm, strict=True)):
            notes.append("point spread: from the scan's sidecar")
            return acquisition.psf
    notes.append("point spread: assumed, truncation and a Gaussian of one voxel FWHM per axis")
    return gaussian_psf(scan.grid.spacing_mm)
