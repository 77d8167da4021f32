"""A super-resolved image in another contrast: one curve for all voxels, through the levels of its tissues.

Gains per tissue, applied by tissue probabilities, are not a function of the intensity: where two tissues share a voxel
they make dips and rims that no anatomy has. A curve that rises everywhere cannot. It holds no information that the
image does not: it is for eyes and tools that expect another contrast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.io.bids.sequence import sequence_from_sidecar
from mrcore.notes import Caution, prefixed
from mrcore.random import seeded
from mrcore.scans import as_scan
from mrkit.anatomy.finding import weighting
from mrkit.anatomy.resolution import psf_of
from mrkit.simulation.protocol import Gauge
from mrkit.simulation.simulate import simulate_ulf
from ulfsim.calibration.gauge import contrast_warnings
from ulfsim.matching.like import preset_like
from ulfsim.measurement.contrast import measure, tissue_cores
from ulfsim.plan import tissues_seen
from ulfsim.protocols.bloch import BlochSpread, bloch_spread

OWN = "the scan's own contrast"
RELATIVE_SD = 0.05
"""Spread of the target levels over which their influence is stated."""


@dataclass(frozen=True, eq=False)
class MappedContrast:
    """An image in another contrast.

    `own` and `target` are the levels of the tissues before and after; `gauge` says where the target came from;
    `wm_gm` is the Michelson contrast before and after. `warnings` say where contrast was made up.
    """

    image: Volume
    own: Mapping[str, float]
    target: Mapping[str, float]
    gauge: str
    wm_gm: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def message(self) -> str:
        """What a report says of the contrast."""
        if self.gauge == OWN:
            return f"contrast: {OWN}, WM-GM {self.wm_gm[0]:.3f} (Michelson); nothing was added"
        before, after = self.wm_gm
        return f"contrast: mapped by one rising curve to {self.gauge}; WM-GM (Michelson) {before:.3f} -> {after:.3f}"


def own_contrast(image: Volume, tissues: TissueMap) -> MappedContrast:
    """Return the image as it is, with its levels.

    Raises:
        GridMismatchError: tissues on another grid.
    """
    own = tissue_levels(image, tissues)
    contrast = _michelson(own)
    return MappedContrast(image, own, own, OWN, (contrast, contrast), ())


def tissue_levels(image: Volume, tissues: TissueMap) -> Mapping[str, float]:
    """Return the median of the image in the core of each tissue.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a tissue without any voxel.
    """
    require_same_grid(image.grid, tissues.grid, "the image and its tissue maps")
    cores, _ = tissue_cores(tissues)
    levels = {name: float(image.data[core].median()) for name, core in zip(tissues.names, cores, strict=True)}
    return MappingProxyType(levels)


def levels_without_gains(own: Mapping[str, float], gains: Mapping[str, float]) -> Mapping[str, float]:
    """Return the levels (tissue -> intensity) that calibrated `gains` turned into those of the scan.

    `gains` are those of `ulfsim.calibration.gains` or of `ulfsim.published` for this scan and a high-field reference;
    each has its gauge.

    Raises:
        BadInputError: gains that do not name the tissues, or are not positive.
    """
    if sorted(gains) != sorted(own) or min(gains.values()) <= 0:
        raise BadInputError(
            f"a positive gain for each of {list(own)} is needed, got {dict(gains)}; a gain of 0 cannot be undone"
        )
    return MappingProxyType({name: level / gains[name] for name, level in own.items()})


def map_contrast(
    image: Volume,
    tissues: TissueMap,
    target: Mapping[str, float],
    gauge: str,
    *,
    reference: Mapping[str, float] | None = None,
    predicted: BlochSpread | None = None,
) -> MappedContrast:
    """Map `image` by one curve that takes the level of each tissue to `target` (tissue -> intensity).

    Zero stays zero; between the levels the curve is the monotone cubic of Fritsch & Carlson (SIAM Journal on
    Numerical Analysis 1980;17:238), above the brightest a proportion. `gauge` says where the target came from. The
    result warns where its contrast exceeds that of `reference` (levels of a high-field image) or leaves what the Bloch
    equations predict (`predicted`, of the target's sequence and field).

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: a target that does not name the tissues, or in which they have another order of brightness.
    """
    own = tissue_levels(image, tissues)
    if sorted(target) != sorted(own) or min(target.values()) <= 0:
        raise BadInputError(f"a positive level for each of {list(own)} is needed, got {dict(target)}")
    order = sorted(own, key=lambda name: own[name])
    wanted = [target[name] for name in order]
    if any(a >= b for a, b in pairwise(wanted)) or own[order[0]] <= 0:
        raise BadInputError(
            f"from dark to bright the image has {', '.join(order)}, the target "
            f"{', '.join(sorted(target, key=lambda n: target[n]))}: no curve can map one to the other; "
            "keep the scan's own contrast"
        )
    mapped = Volume(_curve(image.data, [own[name] for name in order], wanted), image.grid, image.meta)
    after = tissue_levels(mapped, tissues)
    warnings: list[str] = []
    if reference is not None:
        names = tuple(reference)
        levels = [np.array([values[name] for name in names]) for values in (after, reference)]
        warnings += contrast_warnings(names, *levels)
    contrast = _michelson(after)
    if predicted is not None:
        value, low, high = predicted.wm_gm
        if abs(contrast) > max(abs(low), abs(high)) or contrast * value < 0:
            text = f"WM-GM contrast (Michelson) {contrast:.3f} is not what the Bloch equations predict: {value:.3f} "
            warnings.append(Caution(f"{text}({low:.3f} to {high:.3f})"))
    return MappedContrast(mapped, own, after, gauge, (_michelson(own), contrast), tuple(warnings))


def _curve(values: Tensor, own: list[float], wanted: list[float]) -> Tensor:
    """Map values by the curve through (0, 0) and the points (own, wanted); proportional above the last and below 0."""
    inner = PchipInterpolator([0.0, *own], [0.0, *wanted])
    within = values.clamp(0, own[-1])
    mapped = torch.from_numpy(np.asarray(inner(within.numpy()))).to(values.dtype)
    return mapped + (wanted[-1] / own[-1]) * (values - within)


def _michelson(levels: Mapping[str, float]) -> float:
    total = levels["WM"] + levels["GM"]
    return (levels["WM"] - levels["GM"]) / total if total else 0.0


def target_variance(
    image: Volume,
    tissues: TissueMap,
    target: Mapping[str, float],
    seed: int,
    relative_sd: float = 0.05,
    n_draws: int = 8,
) -> float:
    """Return the variance of a mapped image over its target contrasts: mean over the brain, relative to WM = 1.

    Each of `n_draws` has the levels of `target` (tissue -> intensity) changed by a relative sd; those that turn the
    order of the tissues are drawn again. The same figure as the `seed_variance` of `Trust`: both are what HULFSynth
    (Indrakanti & Simpson 2025) reports as 2e-3 over targets and 1e-4 over seeds.

    Raises:
        BadInputError: fewer than two draws, or targets that the image cannot be mapped to.
    """
    if n_draws < 2 or not relative_sd > 0:
        raise BadInputError(f"a variance over targets needs 2 draws and a positive sd, got {n_draws} and {relative_sd}")
    generator = seeded(seed, "mrkit.trust:target_variance")
    order = sorted(target, key=lambda name: target[name])
    images: list[Tensor] = []
    while len(images) < n_draws:
        factors = 1 + relative_sd * torch.randn(len(order), generator=generator)
        drawn = {name: target[name] * float(f) for name, f in zip(order, factors, strict=True)}
        if sorted(drawn, key=lambda name: drawn[name]) == order and min(drawn.values()) > 0:
            mapped = map_contrast(image, tissues, drawn, "drawn").image
            images.append(mapped.data[tissues.mask] / target["WM"])
    return float(torch.stack(images).var(0).mean())


@dataclass(frozen=True, eq=False)
class ReferenceContrast:
    """An image in the contrast of a high-field scan.

    `mapped` holds it, `contrast` is its weighting (BIDS suffix), `gains` (tissue -> factor) are those that take the
    reference to the contrast of the scan, and `variance` is the mean over the brain of the variance of the mapped image
    where the target levels vary by 5 %, relative to WM = 1 (HULFSynth reports 2e-3 of the same figure).
    """

    mapped: MappedContrast
    contrast: str
    gains: Mapping[str, float]
    variance: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the contrast."""
        gains = ", ".join(f"{name} {gain:.3f}" for name, gain in self.gains.items())
        figures = f"mapped contrast: gains {gains}; its variance over targets that vary by 5 % is {self.variance:.1e}"
        warnings = (prefixed("mapped contrast: ", warning) for warning in self.mapped.warnings)
        return self.mapped.message, f"{figures} (WM = 1)", *warnings


def require_same_weighting(own: Iterable[str], reference: Volume) -> str:
    """Return the weighting of the reference, which one of the scans (BIDS suffixes) must have for a curve to map it.

    Raises:
        BadInputError: the reference has another weighting.
    """
    other, known = weighting(reference), " and ".join(dict.fromkeys(own))
    if other not in known.split(" and "):
        raise BadInputError(
            f"the scan is {known} and the contrast reference {other}: tissues have another order of brightness, and no "
            f"rising curve maps one to the other; give a {known.split(' and ')[0]} reference"
        )
    return other


def in_contrast_of(
    reference: Volume,
    scan: Volume,
    image: Volume,
    tissues: TissueMap,
    *,
    scan_weighting: str | None = None,
    gauge: Gauge = Gauge.ABSOLUTE,
    reference_tissues: TissueMap | None = None,
    reference_mask: Tensor | None = None,
    seed: int = 0,
) -> ReferenceContrast:
    """Map `image`, super-resolved from `scan`, to the contrast of `reference`, a high-field scan of any person.

    The simulator is calibrated to take the reference to the tissue SNRs of the scan; its gains are then undone, at the
    levels of the tissues, by one rising curve. Nothing of the reference's anatomy enters.

    Args:
        reference: high-field image of the scan's weighting, with or without its skull.
        scan: the ultra-low-field scan.
        image: what was made of it.
        tissues: of `image`, on its grid.
        scan_weighting: BIDS suffix of the scan; by its sidecar or name otherwise.
        gauge: what fixes the gains; `Gauge.NONE` takes contrasts alone, as published by HULFSynth.
        reference_tissues: on the reference's grid; found otherwise.
        reference_mask: brain of the reference (bool); found otherwise.
        seed: of the targets drawn for `variance`.

    Raises:
        BadInputError: another weighting, or tissues of another order of brightness.
    """
    scan, reference = as_scan(scan)[0], as_scan(reference)[0]
    scan_weighting = scan_weighting or weighting(scan)
    require_same_weighting([scan_weighting], reference)
    seen = tissues_seen(imaging_operator(tissues.grid, scan.grid, psf_of(scan)[0]), tissues, scan.grid)
    preset = preset_like(scan, measure(scan, seen), scan_weighting)
    made = simulate_ulf(
        reference, preset=preset, tissues=reference_tissues, mask=reference_mask, gauge=gauge, seed=seed
    )
    gains = made.calibration.gains
    own = tissue_levels(image, tissues)
    undone = levels_without_gains(own, gains)
    # One factor for all tissues says nothing: WM stays as bright as it is.
    target = {tissue: level * own["WM"] / undone["WM"] for tissue, level in undone.items()}
    name = reference.meta.get("SourceFile", "the reference")
    mapped = map_contrast(
        image,
        tissues,
        target,
        f"that of {name} ({made.calibration.gauge})",
        reference=tissue_levels(reference, made.tissues),
        predicted=_predicted(reference),
    )
    return ReferenceContrast(mapped, scan_weighting, gains, target_variance(image, tissues, target, seed, RELATIVE_SD))


def _predicted(reference: Volume) -> BlochSpread | None:
    """Return what the Bloch equations say of the reference, where its sidecar states sequence and field."""
    with suppress(BadInputError):
        found = sequence_from_sidecar(reference.meta)
        if found.field_t is not None:
            return bloch_spread(found.sequence, found.field_t)
    return None
