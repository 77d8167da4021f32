"""Facts of a scan that tell how real it looks: contrast, noise, sharpness, histogram, by one estimator for all.

Every measure is free of the image's scale, and of who was scanned as far as contrast, noise and sharpness are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.noise_estimate import BACKGROUND, RESIDUAL, NoiseEstimate, background_noise, residual_noise
from ulfsim.measurement.contrast import ContrastStats, measure, pairs
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.measurement.noise import noise_core
from ulfsim.measurement.spectrum import NoiseSpectrum, noise_spectrum
from ulfsim.plan import scan_axes

N_QUANTILES = 200
Profile = tuple[tuple[float, ...], tuple[float, ...]]
Profiles = tuple[Profile, ...]
AXES = ("R", "A", "S")
"""Order of all values per axis: the voxel axes of a scan, sorted by the world axis that each is nearest to."""


@dataclass(frozen=True)
class ContrastFacts:
    """Contrast of a scan with noise from one method: `noise_sd`, `snr` by tissue, `cnr` by pair such as `WM-GM`."""

    noise_sd: float
    snr: Mapping[str, float]
    cnr: Mapping[str, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "snr", MappingProxyType(dict(self.snr)))
        object.__setattr__(self, "cnr", MappingProxyType(dict(self.cnr)))


@dataclass(frozen=True)
class ColourFacts:
    """Colour of the noise, found by one method.

    `fwhm_mm` is that of the kernel which coloured it, along R, A and S (0 white, nan unknown); `power` per axis at
    `k_cyc_per_mm`, 1 everywhere for white noise.
    """

    fwhm_mm: Triple
    k_cyc_per_mm: tuple[tuple[float, ...], ...]
    power: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ScanFacts:
    """What is measured of one scan, or the mean over a group of scans.

    Attributes:
        name: of the scan or group.
        spacing_mm: voxel size along R, A and S.
        noise_method: how `measure` finds the noise of this scan, `background` (air) or `residual`.
        contrast: by noise method, as far as each works in this scan.
        edge_spread_mm: FWHM of the line spread along R, A and S; nan where no edge was usable.
        edge_profiles: along R, A and S, distances from an edge in mm and the mean response there, 0 to 1; for plots.
        colour_method: how `noise_spectrum` finds the colour of this scan's noise; empty where it cannot.
        colour: by method, as far as each works in this scan.
        quantiles: of the intensities in the brain relative to the mean of WM, at (i + 1/2) / n.
        n_scans: that these facts are the mean of.
        notes: how tissues and noise were found.
    """

    name: str
    spacing_mm: Triple
    noise_method: str
    contrast: Mapping[str, ContrastFacts]
    edge_spread_mm: Triple
    edge_profiles: Profiles
    colour_method: str
    colour: Mapping[str, ColourFacts]
    quantiles: tuple[float, ...]
    n_scans: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.noise_method not in self.contrast:
            raise BadInputError(f"facts of {self.name}: no contrast with noise from '{self.noise_method}'")
        object.__setattr__(self, "contrast", MappingProxyType(dict(self.contrast)))
        object.__setattr__(self, "colour", MappingProxyType(dict(self.colour)))

    @property
    def own_contrast(self) -> ContrastFacts:
        """The contrast with noise found as `measure` finds it."""
        return self.contrast[self.noise_method]


def scan_facts(volume: Volume, tissues: TissueMap, name: str, notes: tuple[str, ...] = ()) -> ScanFacts:
    """Measure `volume` (real) with `tissues` on its grid.

    Raises:
        GridMismatchError: tissues on another grid.
        BadInputError: no WM, a tissue without voxels, or noise that cannot be measured in any way.
    """
    require_same_grid(volume.grid, tissues.grid, "the scan and its tissue maps")
    chosen = measure(volume, tissues)
    contrast = {m: _contrast(measure(volume, tissues, n.sd)) for m, n in _noises(volume, tissues).items() if n.sd > 0}
    if not contrast:
        raise BadInputError(f"{name}: no noise can be measured, neither in air nor in a tissue; is it noise-free?")
    order = scan_axes(volume.grid, "S")
    spread = edge_spread(volume, tissues.mask)
    colour = _colours(volume, tissues, order)
    return ScanFacts(
        name,
        _ordered(volume.grid.spacing_mm, order),
        chosen.noise_method if chosen.noise_method in contrast else next(iter(contrast)),
        contrast,
        _ordered(spread.fwhm_mm, order),
        tuple(spread.profiles[a] for a in order) if spread.profiles else (((), ()),) * 3,
        next(iter(colour), ""),
        colour,
        _quantiles(volume.data[tissues.mask], chosen.mean_of("WM")),
        1,
        (*notes, *chosen.notes, *spread.notes),
    )


def group_mean(facts: Sequence[ScanFacts], name: str) -> ScanFacts:
    """Return the mean facts of a group of scans: arithmetic, but geometric over noise power.

    Raises:
        BadInputError: an empty group, or scans without a common way to measure noise.
    """
    if not facts:
        raise BadInputError(f"the group '{name}' has no scans")
    methods = [m for m in (BACKGROUND, RESIDUAL) if all(m in f.contrast for f in facts)]
    if not methods:
        raise BadInputError(f"the noise of the scans of '{name}' was not measured in one way; look at their notes")
    colours = [m for m in (BACKGROUND, RESIDUAL) if all(m in f.colour for f in facts)]
    return replace(
        facts[0],
        name=name,
        noise_method=max(methods, key=[f.noise_method for f in facts].count),
        contrast={m: _mean_contrast([f.contrast[m] for f in facts]) for m in methods},
        edge_spread_mm=_mean_triple([f.edge_spread_mm for f in facts]),
        edge_profiles=tuple(_mean_profile([f.edge_profiles[axis] for f in facts]) for axis in range(3)),
        colour_method=max(colours, key=[f.colour_method for f in facts].count, default=""),
        colour={m: _mean_colour([f.colour[m] for f in facts]) for m in colours},
        quantiles=tuple(np.mean([f.quantiles for f in facts], 0).tolist()),
        n_scans=len(facts),
        notes=(),
    )


def facts_to_json(facts: ScanFacts) -> dict[str, Any]:
    """Return the facts as JSON values; `facts_from_json` reads them back exactly, nan as null."""
    contrast = {m: {"noise_sd": c.noise_sd, "snr": dict(c.snr), "cnr": dict(c.cnr)} for m, c in facts.contrast.items()}
    colour = {m: {key: _plain(value) for key, value in asdict(c).items()} for m, c in facts.colour.items()}
    others = (key for key in facts.__dataclass_fields__ if key not in ("contrast", "colour"))
    return {key: _plain(getattr(facts, key)) for key in others} | {"contrast": contrast, "colour": colour}


def facts_from_json(values: Mapping[str, Any]) -> ScanFacts:
    """Return the facts that `facts_to_json` wrote.

    Raises:
        BadInputError: keys that are missing or not known.
    """
    try:
        contrast = {method: ContrastFacts(**entry) for method, entry in values["contrast"].items()}
        colour = {
            method: ColourFacts(**{key: _read(value) for key, value in entry.items()})
            for method, entry in values["colour"].items()
        }
        others = {key: _read(value) for key, value in values.items() if key not in ("contrast", "colour")}
        return ScanFacts(**others, contrast=contrast, colour=colour)
    except (AttributeError, KeyError, TypeError) as error:
        raise BadInputError(f"these are not the facts of a scan ({error}); remove the file and measure again") from None


def _noises(volume: Volume, tissues: TissueMap) -> dict[str, NoiseEstimate]:
    """Return the noise by method: air around the brain, and second differences in `noise_core`."""
    found: dict[str, NoiseEstimate] = {}
    air = background_noise(volume.data, tissues.mask)
    if air is not None:
        found[BACKGROUND] = air
    for region in (noise_core(tissues), tissues.mask):
        with suppress(BadInputError):  # too small for the filter
            found[RESIDUAL] = residual_noise(volume.data, region)
            break
    return found


def _colours(volume: Volume, tissues: TissueMap, order: tuple[int, int, int]) -> dict[str, ColourFacts]:
    """Return the colour of the noise by method, the scan's own first; none where there is too little noise to tell."""
    found: dict[str, ColourFacts] = {}
    # Without its air every scan shows the colour of its residuals.
    airless = Volume(torch.where(tissues.mask, volume.data, 0.0), volume.grid)
    for seen in (volume, airless):
        with suppress(BadInputError):
            spectrum = noise_spectrum(seen, tissues.mask, noise_core(tissues))
            if spectrum.sd > 0 and spectrum.method not in found:
                found[spectrum.method] = _colour(spectrum, order)
    return found


def _contrast(stats: ContrastStats) -> ContrastFacts:
    cnr = {f"{a}-{b}": stats.cnr(a, b) for a, b in pairs(stats.names)}
    return ContrastFacts(stats.noise_sd, dict(zip(stats.names, stats.snr, strict=True)), cnr)


def _colour(spectrum: NoiseSpectrum, order: tuple[int, int, int]) -> ColourFacts:
    k, power = (tuple(per_axis[a] for a in order) for per_axis in (spectrum.k_cyc_per_mm, spectrum.power))
    return ColourFacts(_ordered(spectrum.fwhm_mm, order), k, power)


def _quantiles(values: Tensor, white: float) -> tuple[float, ...]:
    if white <= 0:
        raise BadInputError("white matter has no signal, so intensities cannot be compared; check the tissue maps")
    at = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
    return tuple(np.quantile(values.double().numpy() / white, at).tolist())


def _mean_contrast(entries: Sequence[ContrastFacts]) -> ContrastFacts:
    n = len(entries)
    snr = {name: sum(e.snr[name] for e in entries) / n for name in entries[0].snr}
    cnr = {pair: sum(e.cnr[pair] for e in entries) / n for pair in entries[0].cnr}
    return ContrastFacts(sum(e.noise_sd for e in entries) / n, snr, cnr)


def _mean_colour(entries: Sequence[ColourFacts]) -> ColourFacts:
    """Return the mean colour, with the power at the frequencies of the scan with the narrowest band."""
    k_axes, powers = [], []
    for axis in range(3):
        known = [(e.k_cyc_per_mm[axis], e.power[axis]) for e in entries if len(e.k_cyc_per_mm[axis]) > 1]
        k = min((k for k, _ in known), key=max, default=())
        logs = [np.log(np.maximum(np.interp(k, at, power), 1e-6)) for at, power in known]
        k_axes.append(k)
        powers.append(tuple(np.exp(np.mean(logs, 0)).tolist()) if logs else ())
    return ColourFacts(_mean_triple([e.fwhm_mm for e in entries]), tuple(k_axes), tuple(powers))


def _mean_profile(profiles: Sequence[Profile]) -> Profile:
    """Return the mean profile over the distances that all have; empty ones do not count."""
    known = [profile for profile in profiles if len(profile[0]) > 1]
    if not known:
        return (), ()
    low, high = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    if not high > low:
        return known[0]
    at = np.linspace(low, high, 41)
    return tuple(at.tolist()), tuple(np.mean([np.interp(at, x, y) for x, y in known], 0).tolist())


def _mean_triple(values: Sequence[Triple]) -> Triple:
    known = [[v for v in axis if math.isfinite(v)] for axis in zip(*values, strict=True)]
    return cast("Triple", tuple(sum(axis) / len(axis) if axis else math.nan for axis in known))


def _ordered(values: Triple, order: tuple[int, int, int]) -> Triple:
    return cast("Triple", tuple(float(values[a]) for a in order))


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _read(value: object) -> Any:  # noqa: ANN401  JSON values
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    return math.nan if value is None else value
