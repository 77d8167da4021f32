"""The verb `superresolve`: ultra-low-field scans of one person in, finer images and tissues out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inr.fitting.fit import Fit, FitSettings
from inr.fitting.prior import Prior
from inr.losses import Misfit, rician_misfit
from inr.rendering import FittedField, fitted_field
from inr.scans.single import BiasedScan, OneScan
from inr.scans.stacks import Stack, Stacks
from inr.voxels import cubic
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.io.bids.resolution import GEOMETRY_KEYS, GivenResolution
from mrcore.noise import residual_z
from mrcore.notes import Caution
from mrcore.scans import as_scan
from mrcore.segmentation.tissues import Segmenter
from mrcore.solvers import Solution
from mrcore.spatial.cropping import crop_to
from mrkit.anatomy.finding import weighting
from mrkit.anatomy.resolution import GIVEN_KEY, with_resolution
from mrkit.devices import device_of
from mrkit.simulation.protocol import Gauge
from mrkit.superresolution.comparison import Comparison, compare_methods
from mrkit.superresolution.contrast import ReferenceContrast, in_contrast_of, own_contrast, require_same_weighting
from mrkit.superresolution.fitting import (
    CPU,
    FitPlan,
    Guess,
    align_guess,
    chosen_weight,
    fit_prepared,
    refit,
    started_from,
)
from mrkit.superresolution.prepare import Prepared, prepare
from mrkit.superresolution.scans import as_acquired, motion_notes
from mrkit.superresolution.trust import KeepMember, Trust, kept_members, trust


@dataclass(frozen=True, eq=False, repr=False)
class SuperResolved:
    """Scans of one person, super-resolved.

    Attributes:
        images: on the output grid, one a contrast, in units of its first scan.
        cubics: cubic interpolations of each contrast's first scan where its header places it, for comparison.
        tissues: on the output grid, shared by all contrasts.
        residuals_z: of each scan, in the order given: (scan - expected) / sd under Rician noise, on its own grid.
        contrasts: weighting of each image; the one that was segmented comes first.
        noise_sds: of each scan per real channel, in its units.
        solution: how the fit ended.
        notes: what was found and assumed.
        stacks: poses, scales and slice weights of several scans; empty for one.
        settings: of the fit; None for a preview, which has none.
        field: renders image and tissues on any grid; None for a preview.
        trust: what an ensemble says; None without one.
        comparison: of all methods; None where they were not run.
        mapped: an image in the contrast of a high-field scan; None where that was not asked for, or not possible.
    """

    images: tuple[Volume, ...]
    cubics: tuple[Volume, ...]
    tissues: TissueMap
    residuals_z: tuple[Volume, ...]
    contrasts: tuple[str, ...]
    noise_sds: tuple[float, ...]
    solution: Solution
    notes: tuple[str, ...]
    stacks: tuple[Stack, ...] = ()
    settings: FitSettings | None = None
    field: FittedField | None = None
    trust: Trust | None = None
    comparison: Comparison | None = None
    mapped: ReferenceContrast | None = None

    def __repr__(self) -> str:
        return f"SuperResolved({', '.join(self.contrasts)}; {self.image.grid.summary}; {self.solution.message})"

    def _repr_html_(self) -> str:
        from mrkit.report.notebook import notebook_html
        from mrkit.report.pictures import intensity_picture, sections, window_of

        facts = {"Result": self.image.grid.summary, "Fit": self.solution.message}
        facts |= {"Notes": "; ".join(self.notes)}
        plane = sections(self.image.grid, self.tissues.mask)[0]
        pictures = []
        for name, image, plain in zip(self.contrasts, self.images, self.cubics, strict=True):
            window = window_of(image, self.tissues.mask)
            pictures.append((f"{name}, cubic", intensity_picture(plain, plane, window)))
            pictures.append((name, intensity_picture(image, plane, window)))
        return notebook_html("Super-resolved", facts, pictures)

    @property
    def image(self) -> Volume:
        """The first image."""
        return self.images[0]

    @property
    def cubic(self) -> Volume:
        """The first cubic interpolation."""
        return self.cubics[0]

    @property
    def residual_z(self) -> Volume:
        """The residual of the first scan."""
        return self.residuals_z[0]

    @property
    def noise_sd(self) -> float:
        """The noise of the first scan."""
        return self.noise_sds[0]


def superresolve(
    scans: Volume | Sequence[Volume],
    *,
    voxel_mm: float = 1.0,
    mask: Tensor | None = None,
    tissues: TissueMap | None = None,
    segmenter: Segmenter | None = None,
    weightings: Sequence[str] | None = None,
    slice_thickness_mm: float | None = None,
    acquired_voxel_mm: tuple[float, float] | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
    prior: Prior | None = None,
    likelihood: Misfit = rician_misfit,
    bias_field: bool = False,
    init: Volume | None = None,
    n_members: int = 0,
    compare: Mapping[str, Prior] | None = None,
    keep_member: KeepMember | None = None,
    preview: bool = False,
    contrast_of: Volume | None = None,
    gauge: Gauge = Gauge.ABSOLUTE,
    device: str | torch.device = CPU,
    noise_sd: float | None = None,
) -> SuperResolved:
    """Fit images and tissues of one person to one or several `scans` and render them at `voxel_mm`.

    Several scans, of any orientation, are aligned rigidly to the first, again within the fit; those of one weighting
    share an image, all share the tissues. Slices that the others contradict count less.

    Args:
        scans: a magnitude scan, or several of one person; where the `meta` of one holds an `Acquisition`, its PSF is
            taken from there, else it is a Gaussian of the slice thickness and the acquired voxel that the keys of a
            BIDS sidecar state, of one voxel where they state none, with truncation. The first sets the frame.
        voxel_mm: isotropic output voxel; the output covers the first scan's field of view along its axes.
        mask: brain mask (bool) on the first scan's grid; found otherwise.
        tissues: initial tissue maps on the first scan's grid; found by `segmenter` otherwise.
        segmenter: what finds the initial tissues, in the first scan where `mask` is given, else in the first T1w, else
            in the first; by default mrkit's HMRF-EM for the weighting of that scan.
        weightings: BIDS suffix of each scan; told from sidecars and names otherwise.
        slice_thickness_mm: of every scan, in place of what its `meta` says.
        acquired_voxel_mm: acquired voxel of every scan along the two axes that lie in its slices, likewise.
        seed: of the field's first state.
        settings: of the fit; without them the weight of total variation, where no prior takes its place, is chosen by
            held-out voxels of the scans.
        prior: what pulls the images towards likely ones.
        likelihood: of the scans; `inr.absolute_misfit` withstands spikes and ghosts better than the Rician one.
        bias_field: whether a smooth receive field, one a contrast, is found with the images and taken out of them.
        init: image to start from, of this person or a template; it is laid over the first image, and serves the
            contrast whose scans it explains best.
        n_members: fits of the ensemble that says how far the result can be trusted; even, 0 for none.
        compare: priors by name; all methods, and the default with each of these, are run and judged, from the scans
            alone (no `init`) and with the Rician likelihood. None: no comparison.
        keep_member: what keeps finished members and methods.
        preview: return the Tikhonov images, without a fit.
        contrast_of: high-field image of any person to whose contrast the image of its weighting is mapped, too.
        gauge: what fixes the gains of that mapping.
        device: torch device of the fits, such as `cuda`; priors must work on it. All that precedes and follows a fit
            runs on the CPU, where the result is.
        noise_sd: of a single scan per real channel, in its units; estimated otherwise.

    Raises:
        BadInputError: scans that cannot be used, or whose brain cannot be found, or a device that is not there.
        GridMismatchError: mask or tissues on another grid than the first scan.
    """
    place = device_of(device)
    resolution = GivenResolution(slice_thickness_mm, acquired_voxel_mm)
    given = [
        with_resolution(as_scan(scan)[0], resolution) for scan in ([scans] if isinstance(scans, Volume) else scans)
    ]
    doubts: tuple[str, ...] = ()
    if contrast_of is not None:
        contrast_of, doubts = as_scan(contrast_of)
        require_same_weighting(weightings or map(weighting, given), contrast_of)
    seen = as_acquired(given, mask, tissues)
    given = list(seen.scans)
    plain = prepare(
        given,
        voxel_mm=voxel_mm,
        mask=seen.mask,
        tissues=seen.tissues,
        segmenter=segmenter,
        weightings=weightings,
        segment_start=not preview,
        noise_sd=noise_sd,
    )
    plain = replace(plain, notes=(*seen.notes, *plain.notes))
    ready, guess, notes = _with_guess(plain, init)
    notes += doubts
    if preview:
        ended = Solution(ready.start, True, 0, (), "preview: no fit")
        result = _result(given, ready, ready.start, ready.tissues.prob, ended)
        result = replace(result, notes=(*notes, "preview: a Tikhonov image, without a fit"))
        return _mapped(result, ready, given, contrast_of, gauge, seed)
    if settings is None:
        settings, why = _settings_for(ready, prior, place)
        notes += why
    plan = FitPlan(settings, prior, likelihood, bias_field, guess, place)
    fitted = fit_prepared(ready, seed, plan)
    fields = _fields_of(fitted)
    if isinstance(plain.data, Stacks):  # the fit has found poses and outliers anew
        aligned = motion_notes(plain.data, plain.weightings)
        notes = [note for note in notes if note not in aligned]
    # What follows, residuals, trust and comparison, knows poses and fields.
    plain, ready = (_known(each, fitted, fields) for each in (plain, ready))
    if guess is not None and fields is not None:
        guess = Guess(guess.image / fields[guess.contrast], guess.contrast)
    plan = replace(plan, bias_field=False, guess=guess)
    notes += _fit_notes(fitted, ready, fields)
    found: Trust | None = None
    if n_members:
        found = trust(ready, fitted.images, kept_members(refit(ready, plan), keep_member), n_members, seed)
        notes += found.notes
    table: Comparison | None = None
    if compare is not None:
        own = TissueMap(fitted.prob, ready.tissues.names, ready.lattice)
        table = compare_methods(plain, settings, seed, compare, own, keep_member, place)
    result = _result(given, ready, fitted.images, fitted.prob, fitted.solution)
    result = replace(
        result,
        notes=(*notes, *_contrast_notes(result)),
        settings=settings,
        field=fitted_field(fitted, settings, ready.tissues.names, ready.scales[0] if len(given) == 1 else 1.0),
        trust=found,
        comparison=table,
    )
    return _mapped(result, ready, given, contrast_of, gauge, seed)


def _with_guess(plain: Prepared, init: Volume | None) -> tuple[Prepared, Guess | None, list[str]]:
    """Return what is to be fitted with the start that an image gives it, that image, and what a reader must know."""
    notes = list(plain.notes)
    if init is None:
        return plain, None, notes
    image, doubts = as_scan(init)
    guess, note = align_guess(plain, image)
    return (
        replace(plain, start=started_from(guess, plain.data, plain.start, plain.lattice)),
        guess,
        [*notes, *doubts, note],
    )


def _settings_for(ready: Prepared, prior: Prior | None, device: torch.device) -> tuple[FitSettings, tuple[str, ...]]:
    """Return settings with the weight of total variation that suits the scans, and why; a prior takes its place."""
    if prior is not None:
        return FitSettings(), ()
    choice = chosen_weight(ready, device)
    return replace(FitSettings(), tv_weight=choice.weight), (choice.message,)


def _fields_of(fitted: Fit) -> Tensor | None:
    """Return the receive fields (C, X, Y, Z) that were found with the images; None where none were sought."""
    data = fitted.data
    if isinstance(data, BiasedScan) and data.bias is not None:
        return data.bias.field()[None]
    if isinstance(data, Stacks) and data.biases:
        return torch.stack([bias.field() for bias in data.biases])
    return None


def _known(ready: Prepared, fitted: Fit, fields: Tensor | None) -> Prepared:
    """Return the scans with poses and receive fields as the fit found them; they are not sought again."""
    data = fitted.data
    if isinstance(data, Stacks):
        found: OneScan | Stacks = replace(data, prob=None, likelihood=rician_misfit)
    elif isinstance(data, OneScan):
        found = OneScan(data.scan, data.model, data.noise_sd)
    else:
        raise TypeError(f"the fit returned {type(data).__name__}")
    return replace(ready, data=found, start=ready.start if fields is None else ready.start / fields)


def _fit_notes(fitted: Fit, ready: Prepared, fields: Tensor | None) -> list[str]:
    """Return what a reader must know of the fit."""
    notes: list[str] = []
    if isinstance(ready.data, Stacks):
        notes += motion_notes(ready.data, ready.weightings)
    for name, field in zip(ready.contrasts, () if fields is None else fields, strict=False):
        inside = field[ready.tissues.mask]
        whose = "" if len(ready.contrasts) == 1 else f"{name}: "
        low, high = float(inside.min()), float(inside.max())
        notes.append(f"{whose}a smooth receive field of {low:.2f} to {high:.2f} was taken out")
    if not fitted.solution.converged:
        notes.append(Caution(f"the fit had not settled: {fitted.solution.message}", rank=0))
    return [*notes, *_scarce(fitted.prob, ready.tissues.names)]


def _result(
    given: Sequence[Volume], ready: Prepared, images: Tensor, prob: Tensor, solution: Solution
) -> SuperResolved:
    """Return images and tissues on the output grid, in units of the scans, and the residuals."""
    leads = [given[ready.lead(contrast)] for contrast in range(len(ready.contrasts))]
    on_output = tuple(
        crop_to(Volume(image * scale, ready.lattice, _lasting(lead.meta)), ready.output_grid)
        for image, scale, lead in zip(images, ready.scales, leads, strict=True)
    )
    tissues = torch.stack([crop_to(Volume(p, ready.lattice), ready.output_grid).data for p in prob])
    data = ready.data
    measured = [s.scan.data for s in data.stacks] if isinstance(data, Stacks) else [data.scan]
    sds = [s.noise_sd for s in data.stacks] if isinstance(data, Stacks) else [data.noise_sd]
    residuals = [residual_z(*each) for each in zip(measured, data.predictions(images), sds, strict=True)]
    return SuperResolved(
        images=on_output,
        cubics=tuple(cubic(Volume(s.data, s.grid, _lasting(s.meta)), ready.output_grid) for s in leads),
        tissues=TissueMap(tissues, ready.tissues.names, ready.output_grid),
        residuals_z=tuple(Volume(r, s.grid, _lasting(s.meta)) for r, s in zip(residuals, given, strict=True)),
        contrasts=ready.contrasts,
        noise_sds=ready.noise_sds,
        solution=replace(solution, x=torch.stack([image.data for image in on_output])),
        notes=ready.notes,
        stacks=data.stacks if isinstance(data, Stacks) else (),
    )


def _lasting(meta: Mapping[str, object]) -> dict[str, object]:
    """Return what of a scan's `meta` holds for what is made of it."""
    own = ("Acquisition", "Simulation", "Warnings", GIVEN_KEY, *GEOMETRY_KEYS)
    return {key: value for key, value in meta.items() if key not in own}


def _mapped(
    result: SuperResolved,
    ready: Prepared,
    given: Sequence[Volume],
    reference: Volume | None,
    gauge: Gauge,
    seed: int,
) -> SuperResolved:
    """Return the result with an image in the contrast of `reference`; a failure must not cost the fit."""
    if reference is None:
        return result
    contrast = ready.contrasts.index(weighting(reference))
    number = ready.lead(contrast)
    scan = Volume(given[number].data, ready.placed(number).grid, given[number].meta)
    images = scan, result.images[contrast], result.tissues
    try:
        found = in_contrast_of(reference, *images, scan_weighting=ready.weightings[number], gauge=gauge, seed=seed)
    except BadInputError as error:
        note = f"the image was not mapped to the contrast of {reference.meta.get('SourceFile')}: {error}"
        return replace(result, notes=(*result.notes, note))
    return replace(result, mapped=found, notes=(*result.notes, *found.notes))


def _contrast_notes(result: SuperResolved) -> tuple[str, ...]:
    """Return what there is to know of the contrast of the image, where every tissue is the likeliest somewhere."""
    if not bool((result.tissues.prob > 0.5).flatten(1).any(1).all()):
        return ()
    found = own_contrast(result.image, result.tissues)
    return found.message, *found.warnings


def _scarce(prob: Tensor, names: tuple[str, ...]) -> list[str]:
    """Return a note for each tissue (T, X, Y, Z) that is the likeliest in less than 1 % of the brain."""
    labels = prob.argmax(0)[prob.sum(0) > 0.5]
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    return [
        Caution(f"{name} makes up {100 * count / len(labels):.2g} % of the brain found: do not trust the tissues", 0)
        for name, count in zip(names, counts, strict=True)
        if count < 0.01 * len(labels)
    ]
