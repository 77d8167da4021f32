"""Domain randomisation: draw whole acquisitions, target SNRs and artefacts from stated ranges.

Every number has a stream of its own, from the seed, the key of the draw and the name of the number: the same in every
process, and changing one range leaves all other numbers as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, cast

import torch

from mrcore.data.acquisition import Acquisition, AxisPsf, Psf
from mrcore.data.acquisition import from_json as acquisition_from_json
from mrcore.data.acquisition import to_json as acquisition_to_json
from mrcore.data.grid import Grid, Triple
from mrcore.errors import BadInputError
from mrcore.random import seeded
from mrcore.signals.steady_state import tissue_signals
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts
from ulfsim.artefacts.draws import MILD, STRONG, ArtefactRange, Chance, draw_artefacts
from ulfsim.protocols.presets import FIELD_T, PRESETS, Preset
from ulfsim.protocols.targets import TargetSnr

Interval = tuple[float, float]


@dataclass(frozen=True)
class AcquisitionRange:
    """What training scans may be like; intervals are (low, high), uniform between them unless stated otherwise.

    Attributes:
        protocols: one is drawn, each as likely; it gives the sequence and the SNRs of the tissues relative to WM.
        field_t: main field; SNRs of the protocol follow it by the ratio of the Bloch signals at both fields.
        in_plane_mm: voxel size in plane, the same on both axes.
        slice_mm: voxel size along the slice axis; never below that in plane.
        psf_voxels: full width at half maximum of the Gaussian blur on each axis, in voxels.
        taper: part of the band that a raised cosine takes, on each axis.
        decay_at_edge: echo-train decay on the second axis, see `AxisPsf`.
        slice_axes: world axes `R`, `A`, `S`, of which one is drawn.
        tilt_deg: turns about world R, A and S.
        wm_snr: SNR of WM, log-uniform.
        snr_spread: sd of the logarithm of the relative SNR of each other tissue; 0.1 is about 10 %.
        target: distribution of the SNRs of all tissues, in place of `wm_snr`, `snr_spread` and the protocol's SNRs; it
            does not follow `field_t`.
        noise_fwhm_voxels: colour of the noise on each axis, in voxels; 0 is white.
        n_channels: numbers of receive channels, of which one is drawn.
        artefacts: how often artefacts occur and how strong; None for none.

    Raises:
        BadInputError: an interval out of order or outside what `Acquisition` takes, or nothing to choose from.
    """

    protocols: tuple[Preset, ...]
    field_t: Interval
    in_plane_mm: Interval
    slice_mm: Interval
    psf_voxels: Interval
    taper: Interval
    decay_at_edge: Interval
    slice_axes: tuple[str, ...]
    tilt_deg: Interval
    wm_snr: Interval
    snr_spread: float
    target: TargetSnr | None
    noise_fwhm_voxels: Interval
    n_channels: tuple[int, ...]
    artefacts: ArtefactRange | None

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            interval = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, interval)
            if len(interval) != 2 or not least <= interval[0] <= interval[1] <= most:
                raise BadInputError(f"{name} needs a low and a high end between {least:g} and {most:g}, got {interval}")
        for name in ("protocols", "slice_axes", "n_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise BadInputError(f"{name} needs something to choose from, got nothing")
        if not set(self.slice_axes) <= {"R", "A", "S"} or min(self.n_channels) < 1:
            raise BadInputError(
                f"slice_axes are of R, A, S and n_channels at least 1, got {self.slice_axes} and {self.n_channels}"
            )
        if not 0 <= self.snr_spread < math.inf:
            raise BadInputError(f"snr_spread must be finite and not negative, got {self.snr_spread}")
        lacking = [p.name for p in self.protocols if "WM" not in p.snr]
        if self.target is None and lacking:
            raise BadInputError(f"SNRs are relative to WM, which the protocols {lacking} do not state; give a target")

    def __reduce__(self) -> tuple[Callable[[Mapping[str, Any]], AcquisitionRange], tuple[dict[str, Any]]]:
        # Read-only mappings do not pickle; worker processes need ranges.
        return from_json, (to_json(self),)


_LIMITS: Mapping[str, Interval] = MappingProxyType(
    {
        "field_t": (0.001, 20.0),
        "in_plane_mm": (0.05, 50.0),
        "slice_mm": (0.05, 50.0),
        "psf_voxels": (0.0, 20.0),
        "taper": (0.0, 1.0),
        "decay_at_edge": (0.0, 20.0),
        "tilt_deg": (-180.0, 180.0),
        "wm_snr": (1e-3, 1e6),
        "noise_fwhm_voxels": (0.0, 20.0),
    }
)


@dataclass(frozen=True)
class Draw:
    """One acquisition out of a range: `acquisition` without noise, `snr` to reach per tissue, name of the `protocol`.

    `artefact_range`, `seed` and `key` decide the artefacts, which need the scan's grid: see `artefacts_of`.
    """

    acquisition: Acquisition
    snr: Mapping[str, float]
    protocol: str
    artefact_range: ArtefactRange | None
    seed: int
    key: str


def draw(ranges: AcquisitionRange, seed: int, key: str) -> Draw:
    """Return one acquisition of `ranges`; the same arguments give the same one in every process."""

    def stream(name: str) -> torch.Generator:
        return seeded(seed, f"ulfsim.sample:{key}:{name}")

    def uniform(name: str, n: int = 1) -> list[float]:
        low, high = getattr(ranges, name)
        return [low + (high - low) * u for u in torch.rand(n, generator=stream(name), dtype=torch.float64).tolist()]

    def one_of(name: str) -> Any:  # noqa: ANN401  whatever the range holds
        choices = getattr(ranges, name)
        return choices[int(torch.randint(len(choices), (), generator=stream(name)))]

    protocol: Preset = one_of("protocols")
    in_plane = uniform("in_plane_mm")[0]
    voxel_mm = (in_plane, in_plane, max(in_plane, uniform("slice_mm")[0]))
    decay = (0.0, uniform("decay_at_edge")[0], 0.0)
    psf = tuple(
        AxisPsf(gaussian_fwhm_mm=width * voxel, taper=taper, decay_at_edge=edge)
        for width, voxel, taper, edge in zip(
            uniform("psf_voxels", 3), voxel_mm, uniform("taper", 3), decay, strict=True
        )
    )
    colour = tuple(w * v for w, v in zip(uniform("noise_fwhm_voxels", 3), voxel_mm, strict=True))
    acquisition = Acquisition(
        field_t=uniform("field_t")[0],
        voxel_mm=voxel_mm,
        sequence=protocol.acquisition.sequence,
        psf=cast("Psf", psf),
        slice_axis=one_of("slice_axes"),
        tilt_deg=cast("Triple", tuple(uniform("tilt_deg", 3))),
        noise_fwhm_mm=cast("Triple", colour),
        n_channels=one_of("n_channels"),
    )
    relative = _at_field(protocol, acquisition.field_t)
    snr = ranges.target.draw(seed, key) if ranges.target else _relative_snr(ranges, relative, stream)
    return Draw(acquisition, MappingProxyType(dict(snr)), protocol.name, ranges.artefacts, seed, key)


def artefacts_of(drawn: Draw, scan_grid: Grid) -> Artefacts:
    """Return the artefacts of a draw, for its scan on `scan_grid`."""
    if drawn.artefact_range is None:
        return NO_ARTEFACTS
    return draw_artefacts(drawn.artefact_range, scan_grid, drawn.seed, drawn.key)


def _at_field(protocol: Preset, field_t: float) -> dict[str, float]:
    """Return the SNRs of a protocol at another field: each times the ratio of its tissue's Bloch signals."""
    own = protocol.acquisition.field_t
    if math.isclose(field_t, own):
        return dict(protocol.snr)
    names = tuple(protocol.snr)
    signals = (tissue_signals(protocol.acquisition.sequence, field, names) for field in (field_t, own))
    return {name: protocol.snr[name] * new / old for name, new, old in zip(names, *signals, strict=True)}


def _relative_snr(
    ranges: AcquisitionRange, relative: Mapping[str, float], stream: Callable[[str], torch.Generator]
) -> dict[str, float]:
    low, high = (math.log(v) for v in ranges.wm_snr)
    white = math.exp(low + (high - low) * float(torch.rand((), generator=stream("wm_snr"), dtype=torch.float64)))
    out = {}
    for name, value in relative.items():
        spread = ranges.snr_spread * float(torch.randn((), generator=stream(f"snr {name}"), dtype=torch.float64))
        out[name] = white * value / relative["WM"] * (1.0 if name == "WM" else math.exp(spread))
    return out


def to_json(ranges: AcquisitionRange) -> dict[str, Any]:
    """Return a range as JSON values."""
    out = {f.name: getattr(ranges, f.name) for f in fields(ranges)}
    for name, value in out.items():
        out[name] = list(value) if isinstance(value, tuple) else value
    out["protocols"] = [
        {"name": p.name, "acquisition": acquisition_to_json(p.acquisition), "snr": dict(p.snr), "source": p.source}
        for p in ranges.protocols
    ]
    out["target"] = asdict(ranges.target) if ranges.target else None
    out["artefacts"] = asdict(ranges.artefacts) if ranges.artefacts else None
    return out


def from_json(values: Mapping[str, Any]) -> AcquisitionRange:
    """Read what `to_json` wrote, exactly, also after a passage through a file.

    Raises:
        BadInputError: a value that is missing, unknown or out of range.
    """
    try:
        protocols = tuple(
            Preset(p["name"], acquisition_from_json(p["acquisition"]), p["snr"], p["source"])
            for p in values["protocols"]
        )
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        target, artefacts = _target(values["target"]), _artefact_range(values["artefacts"])
        return AcquisitionRange(**{**read, "protocols": protocols, "target": target, "artefacts": artefacts})
    except (KeyError, TypeError) as error:
        raise BadInputError(f"this range of acquisitions is not complete or not of this version: {error}") from None


def _target(values: Mapping[str, Any] | None) -> TargetSnr | None:
    if values is None:
        return None
    rows = tuple(tuple(row) for row in values["covariance_log"])
    lists = {name: tuple(values[name]) for name in ("names", "mean_log", "sources")}
    return TargetSnr(**{**values, **lists, "covariance_log": rows})


def _artefact_range(values: Mapping[str, Any] | None) -> ArtefactRange | None:
    if values is None:
        return None

    def of_json(value: Any) -> Any:  # noqa: ANN401  any JSON value
        if isinstance(value, Mapping):
            return Chance(**value)
        return tuple(value) if isinstance(value, list) else value

    return ArtefactRange(**{name: of_json(value) for name, value in values.items()})


SWOOP_LIKE = AcquisitionRange(
    protocols=tuple(PRESETS.values()),
    field_t=(FIELD_T, FIELD_T),
    in_plane_mm=(1.4, 1.9),
    slice_mm=(4.5, 5.5),
    psf_voxels=(0.7, 1.4),
    taper=(0.0, 0.3),
    decay_at_edge=(0.0, 0.5),
    slice_axes=("S",),
    tilt_deg=(-8.0, 8.0),
    wm_snr=(25.0, 90.0),
    snr_spread=0.15,
    target=None,
    noise_fwhm_voxels=(0.0, 1.2),
    n_channels=(1,),
    artefacts=MILD,
)
"""Around the three published Hyperfine Swoop protocols.

WM SNR reaches from half to about twice the delivered 50.8 (other published sets 75.6 and 86.8, arXiv:2511.14897); all
other widths are assumed, about 15 % around the presets.
"""

BROAD = replace(
    SWOOP_LIKE,
    field_t=(0.05, 0.55),
    in_plane_mm=(1.0, 3.0),
    slice_mm=(1.0, 8.0),
    psf_voxels=(0.3, 2.0),
    taper=(0.0, 1.0),
    decay_at_edge=(0.0, 1.5),
    slice_axes=("R", "A", "S"),
    tilt_deg=(-20.0, 20.0),
    wm_snr=(5.0, 200.0),
    snr_spread=0.5,
    noise_fwhm_voxels=(0.0, 2.0),
    n_channels=(1, 2, 4, 8),
    artefacts=STRONG,
)
"""Wider than any known scanner, so that a network trained on it meets nothing new; assumed, not measured."""
