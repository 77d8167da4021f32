"""The verb `quantify`: raw data of a fingerprint in, maps of T1, T2 and PD out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor
from torch.nn.functional import avg_pool3d

from mrcore.data.volume import Volume
from mrcore.denoisers.unet import Denoise
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.notes import Caution
from mrcore.signals.mrf_sequence import MrfSequence
from mrcore.solvers import Watch, unwatched
from mrkit.quantification.methods import DEFAULT_METHOD, METHODS, Method, Task, usual_denoiser
from recon.coils.channels import compressed, whitened
from recon.coils.maps import coil_maps_from_data
from recon.contrasts import Contrast, weighted_image
from recon.dictionary.dictionary import Dictionary, ModelOf, build_dictionary, fisp_model, log_grid, signal_blocks
from recon.encoding.encoding import Encoding, subspace_encoding
from recon.encoding.subspace import Subspace, subspace_of
from recon.methods.baselines import subspace_cg
from recon.methods.maps import Maps, coefficient_noise, map_bounds
from recon.rawdata import RawData
from recon.trajectories.density import density_compensation
from recon.trajectories.extent import extent_cautions

Announce = Callable[[str], None]
"""Is told what is being done now."""

_AROUND = 5  # voxels
_N_CG, _N_REPLICAS = 10, 3
_MUCH_ENERGY = 1e-3
"""Share outside the subspace that is worth a note: as large as a signal-to-noise ratio of 30."""


@dataclass(frozen=True)
class QuantifySettings:
    """What is common to all methods.

    Attributes:
        rank: temporal components that are reconstructed.
        t1_range_s: of the dictionary; `t2_range_s` likewise, T2 <= T1.
        step: factor, less 1, between neighbours of the dictionary; maps lie between them.
        b1: flip angles over the nominal one that are tried; empty: the nominal one.
        n_coils: virtual coils to compress to; None keeps all.

    Raises:
        BadInputError: a rank or a number of coils below 1.
    """

    rank: int = 5
    t1_range_s: tuple[float, float] = (0.1, 5.0)
    t2_range_s: tuple[float, float] = (0.01, 2.0)
    step: float = 0.05
    b1: tuple[float, ...] = ()
    n_coils: int | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.n_coils is not None and self.n_coils < 1):
            raise BadInputError(f"at least one component and one coil are needed, got {self.rank} and {self.n_coils}")


@dataclass(frozen=True, eq=False, repr=False)
class Quantified:
    """Maps on the grid of the raw data.

    All are 0 outside `mask`. `t1_sd_s`, `t2_sd_s` and `pd_sd` (of its magnitude) are the least standard deviations that
    the noise allows (Cramer-Rao), at most the largest T1 and T2 of the dictionary and the largest PD of the map, where
    nothing is known. `pd` is complex and has no unit; `b1` is None where it was not fitted. `residual`, 0 to 1, is
    the share of a voxel's signal that no atom explains. `history` is one value of `history_of` a step, `message`
    says how the method ended.
    """

    t1_s: Volume
    t2_s: Volume
    pd: Volume
    b1: Volume | None
    t1_sd_s: Volume
    t2_sd_s: Volume
    pd_sd: Volume
    residual: Volume
    mask: Tensor
    converged: bool
    n_iter: int
    history: tuple[float, ...]
    history_of: str
    message: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        fitted = "T1, T2, PD" if self.b1 is None else "T1, T2, PD, B1"
        return f"Quantified({fitted}; {self.t1_s.grid.summary}; {self.message})"

    def _repr_html_(self) -> str:
        from mrkit.quantification.scales import T1_SCALE, T2_SCALE
        from mrkit.report.notebook import notebook_html
        from mrkit.report.pictures import quantity_picture, sections

        medians = {"T1": self.t1_s.data[self.mask].median(), "T2": self.t2_s.data[self.mask].median()}
        facts = {f"Median {name}": f"{1e3 * float(value):.0f} ms" for name, value in medians.items()}
        facts |= {"Maps": self.t1_s.grid.summary, "Ended": self.message, "Notes": "; ".join(self.notes)}
        plane = sections(self.t1_s.grid, self.mask)[0]
        pictures = [
            (f"{scale.name}, {scale.label()}", quantity_picture(map_, plane, scale.window, scale.colours, self.mask))
            for scale, map_ in ((T1_SCALE, self.t1_s), (T2_SCALE, self.t2_s))
        ]
        return notebook_html("Quantitative maps", facts, pictures)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What every method starts from: data, encoding, dictionary and where the object is.

    The encoding weighs samples by the root of the `density` compensation (N,): between the least noise, which weights
    of 1 have, and the fastest convergence. `noise_sd` (X, Y, Z), per real channel of the coefficients, is that of least
    squares; None without a noise scan.
    """

    raw: RawData
    encoding: Encoding
    density: Tensor
    dictionary: Dictionary
    mask: Tensor
    noise_sd: Tensor | None
    seed: int = 0
    notes: tuple[str, ...] = ()


def quantify(
    raw: RawData,
    sequence: MrfSequence | None = None,
    *,
    model: ModelOf = fisp_model,
    method: Method | None = None,
    settings: QuantifySettings | None = None,
    coil_maps: Tensor | None = None,
    mask: Tensor | None = None,
    denoiser: Denoise | None = None,
    seed: int = 0,
) -> Quantified:
    """Reconstruct `raw` and return its maps.

    Args:
        raw: samples with their trajectory; noise samples, where there are any, whiten the channels.
        sequence: of the train; None takes that of the raw data.
        model: the kind of train, `fisp_model` or `bssfp_model` of recon, perhaps with a slice profile.
        method: one of `mrkit.quantification.methods`; MRI2Qmap by default.
        settings: of dictionary, subspace and coils.
        coil_maps: (C, X, Y, Z) complex, for the channels as they are in `raw`; found from the data otherwise.
        mask: of the object (X, Y, Z, bool); found otherwise.
        denoiser: of real volumes, for MRI2Qmap; the one that comes with mrkit by default.
        seed: of the draws that measure the noise, and of methods that draw.

    Raises:
        BadInputError: no sequence, one of another number of frames, coil maps that do not fit.
        GridMismatchError: a mask of another shape than the raw data's grid.
    """
    if sequence is not None:
        raw = replace(raw, sequence=sequence)
    chosen = settings or QuantifySettings()
    ready = prepare_raw(raw, chosen, model=model, coil_maps=coil_maps, mask=mask, seed=seed)
    return quantify_prepared(ready, method or METHODS[DEFAULT_METHOD], denoiser=denoiser)


def prepare_raw(
    raw: RawData,
    settings: QuantifySettings,
    *,
    model: ModelOf = fisp_model,
    coil_maps: Tensor | None = None,
    mask: Tensor | None = None,
    seed: int = 0,
    announce: Announce = lambda _: None,
) -> Prepared:
    """Return what every method starts from; `announce` is told of up to four stages; the rest as for `quantify`."""
    sequence = raw.sequence
    if sequence is None:
        raise BadInputError("the raw data say nothing about their sequence; give it")
    _check_given(raw, settings, coil_maps, mask)
    raw = _in_single_precision(raw)
    announce("computing the dictionary of signals")
    dictionary, subspace, notes = _dictionary(sequence, model, settings)
    notes = [*raw.notes, *extent_cautions(raw.trajectory), *notes]
    announce("measuring density and coils")
    is_white = coil_maps is None and raw.noise is not None
    if coil_maps is None:
        if raw.noise is None:
            text = "no noise scan: all coils count as equally noisy, and the sd rest on what the match left over"
            notes.append(Caution(text))
        else:
            raw = whitened(raw)
        if settings.n_coils is not None:
            raw = compressed(raw, settings.n_coils)
    density = density_compensation(raw.trajectory)
    found = coil_maps_from_data(raw, density) if coil_maps is None else coil_maps.to(raw.samples.dtype)
    announce("building the encoding")
    encoding = subspace_encoding(raw.trajectory, subspace, found, density.sqrt())
    if mask is None:
        mask = object_mask(encoding.operator.H(density * raw.samples).abs().square().sum(0).sqrt())
    noise_sd = None
    if is_white:
        announce("measuring the noise of the components")
        noise_sd = coefficient_noise(
            encoding, 1.0, lambda noise: subspace_cg(encoding, noise, _N_CG).x, _N_REPLICAS, seed
        )
    return Prepared(raw, encoding, density, dictionary, mask, noise_sd, seed, tuple(notes))


def quantify_prepared(
    ready: Prepared, method: Method, denoiser: Denoise | None = None, watch: Watch = unwatched
) -> Quantified:
    """Return the maps by one method; `watch` is called after each of up to `method.n_steps` steps."""
    denoiser = denoiser or usual_denoiser(ready.raw.grid)
    task = Task(
        ready.encoding, ready.density, ready.raw.samples, ready.dictionary, ready.mask, denoiser, ready.seed, watch
    )
    maps, solution = method.solve(task)
    is_fine = solution.converged or method.is_limited
    unsettled = Caution(f"{method.title} had not settled: {solution.message}", rank=0)
    notes = ready.notes if is_fine else (*ready.notes, unsettled)
    grid, dictionary = ready.raw.grid, ready.dictionary
    noise = _left_over(solution.x, maps) if ready.noise_sd is None else ready.noise_sd
    bounds = map_bounds(dictionary, maps, noise)

    def volume(values: Tensor) -> Volume:
        return Volume(torch.where(values.isfinite(), values, torch.zeros_like(values)), grid)

    def volume_of_sd(values: Tensor, most: Tensor) -> Volume:
        return Volume(torch.where(values < most, values, most), grid)

    return Quantified(
        t1_s=volume(maps.t1_s),
        t2_s=volume(maps.t2_s),
        pd=volume(maps.pd),
        b1=None if maps.b1 is None else volume(maps.b1),
        t1_sd_s=volume_of_sd(bounds.t1_s, dictionary.grid.t1_s.max()),
        t2_sd_s=volume_of_sd(bounds.t2_s, dictionary.grid.t2_s.max()),
        pd_sd=volume_of_sd(bounds.pd, maps.pd.abs().max()),
        residual=volume(torch.where(maps.mask, (1 - maps.fit.square()).clamp_min(0).sqrt(), 0.0)),
        mask=ready.mask,
        converged=solution.converged,
        n_iter=solution.n_iter,
        history=solution.history,
        history_of=method.history_of,
        message=solution.message,
        notes=notes,
    )


def weighted_volume(result: Quantified, contrast: Contrast) -> Volume:
    """Return the weighted image that the maps imply, 0 outside the mask, in the unit of PD."""
    image = weighted_image(contrast, result.t1_s.data, result.t2_s.data, result.pd.data)
    return Volume(image, result.t1_s.grid)


def _dictionary(
    sequence: MrfSequence, model_of: ModelOf, settings: QuantifySettings
) -> tuple[Dictionary, Subspace, list[str]]:
    """Return the dictionary in its subspace, the subspace, and a note where this leaves much out."""
    grid = log_grid(settings.t1_range_s, settings.t2_range_s, settings.step, settings.b1 or (1.0,))
    model, n_frames = model_of(sequence), sequence.n_frames
    subspace = subspace_of(signal_blocks(grid, model, n_frames), settings.rank)
    dictionary = build_dictionary(grid, model, n_frames, subspace)
    if subspace.energy_left_out <= _MUCH_ENERGY:
        return dictionary, subspace, []
    share = f"{100 * subspace.energy_left_out:.2g} %"
    note = f"{share} of the signals' energy lies outside {settings.rank} components; give more (--rank)"
    return dictionary, subspace, [note]


def _in_single_precision(raw: RawData) -> RawData:
    noise = None if raw.noise is None else raw.noise.to(torch.complex64)
    return replace(raw, samples=raw.samples.to(torch.complex64), noise=noise)


def _left_over(coefficients: Tensor, maps: Maps) -> Tensor:
    """Return the noise sd (X, Y, Z) per real channel that the match left over, from the voxels around each.

    Of 2 K numbers a voxel PD takes two, T1 and T2 one each.
    """
    n_free = max(1, 2 * len(coefficients) - 4)
    power = coefficients.abs().square().sum(0) * (1 - maps.fit.square()).clamp_min(0) / n_free
    stacked = torch.stack([power * maps.mask, maps.mask.to(power)])[:, None]
    sizes = [min(_AROUND, n - 1 + n % 2) for n in power.shape]
    mean, share = avg_pool3d(stacked, sizes, stride=1, padding=[n // 2 for n in sizes])[:, 0]
    sd: Tensor = (mean / share.clamp_min(1e-6)).sqrt()
    return sd


def _check_given(raw: RawData, settings: QuantifySettings, coil_maps: Tensor | None, mask: Tensor | None) -> None:
    if settings.rank > raw.n_frames:
        raise BadInputError(f"{settings.rank} components need at least as many frames, the data have {raw.n_frames}")
    if settings.n_coils is not None and settings.n_coils > raw.n_coils:
        raise BadInputError(f"the data have {raw.n_coils} coils and cannot be compressed to {settings.n_coils}")
    if coil_maps is not None and settings.n_coils is not None:
        raise BadInputError("coils cannot be compressed where their maps are given; compress both before")
    wanted = (raw.n_coils, *raw.grid.shape)
    if coil_maps is not None and tuple(coil_maps.shape) != wanted:
        raise BadInputError(f"coil maps must be {wanted}, got {tuple(coil_maps.shape)}: are coils missing?")
    if mask is not None and tuple(mask.shape) != raw.grid.shape:
        raise GridMismatchError(f"the mask is {tuple(mask.shape)}, the raw data's grid {raw.grid.shape}")
    if mask is not None and not bool(mask.any()):
        raise BadInputError("the mask is empty: there is nothing to quantify")
    if not bool(raw.samples.abs().max() > 0):
        raise BadInputError("all samples are 0: there is no signal")


_SMOOTHING_VOXELS = 1.0


_OF_THRESHOLD = 0.5  # Otsu's lies midway between object and air; dark tissue is below it


def object_mask(image: Tensor) -> Tensor:
    """Return the voxels (bool) of the largest bright part of a magnitude image (X, Y, Z), holes filled.

    The threshold is half of Otsu's, on the smoothed image; slices are filled one by one across the last axis.
    """
    values = image.detach().cpu().numpy().astype(np.float64)
    smooth = ndimage.gaussian_filter(values, [_SMOOTHING_VOXELS if n > 1 else 0.0 for n in values.shape])
    if smooth.max() <= smooth.min():
        return torch.ones(image.shape, dtype=torch.bool)
    parts, n_parts = ndimage.label(smooth > _OF_THRESHOLD * threshold_otsu(smooth))
    sizes = np.bincount(parts.reshape(-1), minlength=n_parts + 1)
    sizes[0] = 0
    filled = [ndimage.binary_fill_holes(part) for part in np.moveaxis(parts == sizes.argmax(), -1, 0)]
    return torch.from_numpy(np.stack(filled, -1))
