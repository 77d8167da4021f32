"""Artefacts of a scan: drawn first, then applied deterministically; off by default; exact in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from mrcore.data.grid import Grid, Shape3
from mrcore.errors import BadInputError
from mrcore.operators.fourier import FourierOp
from mrcore.operators.linop import LinearOp
from mrcore.operators.pointwise import ComplexOp, DiagonalOp
from ulfsim.artefacts.encoding import AxisRoles, along_axis
from ulfsim.artefacts.fields import B0Distortion, ConcomitantWarp, ReceiveBias, disturbed_object
from ulfsim.artefacts.interference import Spike, Spikes, Zipper, interference_image
from ulfsim.artefacts.kspace import (
    IntensityDrift,
    NyquistGhost,
    ShotMotion,
    ShotPose,
    Wrap,
    drift_weight,
    ghost_weight,
    k_space_of,
    scan_operator,
    wrap_operator,
)
from ulfsim.plan import ScanPlan


@dataclass(frozen=True)
class Artefacts:
    """What disturbs a scan; None where an artefact is absent. `encoding` says along which axes.

    They act in this order: bias, then B0 and concomitant field on the object; the shots are scanned, each in its pose;
    ghost and drift over lines act on k-space, drift over slices and wrap on the image; zipper and spikes are added.
    Lines are counted over the full field of view, before the wrap.
    """

    bias: ReceiveBias | None = None
    b0: B0Distortion | None = None
    concomitant: ConcomitantWarp | None = None
    motion: ShotMotion | None = None
    ghost: NyquistGhost | None = None
    drift: IntensityDrift | None = None
    wrap: Wrap | None = None
    zipper: Zipper | None = None
    spikes: Spikes | None = None
    encoding: AxisRoles = field(default=AxisRoles())

    @property
    def names(self) -> tuple[str, ...]:
        """The artefacts that are present, in their order; empty for an undisturbed scan."""
        return tuple(f.name for f in fields(self) if f.name != "encoding" and getattr(self, f.name) is not None)


NO_ARTEFACTS = Artefacts()
"""An undisturbed scan."""


def disturbed_operator(plan: ScanPlan, artefacts: Artefacts) -> LinearOp:
    """Return the operator from an object (X, Y, Z, real) to its disturbed complex scan, without noise and interference.

    Without artefacts it is `plan.operator` with an imaginary part of 0. Motion wants an object lattice that holds the
    head with a margin.
    """
    shape, dtype, device = plan.scan_grid.shape, plan.operator.dtype, plan.operator.device
    encoding = artefacts.encoding
    fields_of_object, lattice = disturbed_object(plan, encoding, artefacts.bias, artefacts.b0, artefacts.concomitant)
    weight = _line_weight(artefacts, shape)
    motion = artefacts.motion if artefacts.motion is not None and artefacts.motion.moves else None
    if weight is None and motion is None:
        operator = ComplexOp(shape, dtype, device) @ scan_operator(plan, lattice, ShotPose())
    else:
        operator = k_space_of(plan, lattice, encoding, motion)
        if weight is not None:
            lines = weight.to(device, dtype.to_complex())
            operator = DiagonalOp(along_axis(lines, encoding.phase_axis, shape)) @ operator
        operator = FourierOp(shape, dtype, device).H @ operator
    if fields_of_object is not None:
        operator = operator @ fields_of_object
    if artefacts.drift is not None and artefacts.drift.over_slices:
        gain = drift_weight(artefacts.drift, shape[encoding.slice_axis]).to(device, dtype)
        operator = DiagonalOp(along_axis(gain, encoding.slice_axis, shape)) @ operator
    if artefacts.wrap is not None:
        operator = wrap_operator(artefacts.wrap, encoding.phase_axis, shape, dtype, device) @ operator
    return operator


def _line_weight(artefacts: Artefacts, shape: Shape3) -> Tensor | None:
    """Return the complex factor of each phase-encoding line; None where nothing changes them."""
    n_lines = shape[artefacts.encoding.phase_axis]
    weight = None if artefacts.ghost is None else ghost_weight(artefacts.ghost, n_lines)
    if artefacts.drift is None or artefacts.drift.over_slices:
        return weight
    gain = drift_weight(artefacts.drift, n_lines).to(torch.complex128)
    return gain if weight is None else weight * gain


def interference_of(
    artefacts: Artefacts, scan_grid: Grid, dtype: torch.dtype, device: torch.device | str
) -> Tensor | None:
    """Return what zipper and spikes add to the complex scan (X, Y, Z), in units of the noise sd per real channel.

    The caller multiplies by `Acquisition.noise_sd`. `dtype` may be real or complex, the result is complex of that
    precision; None where there is neither zipper nor spikes.
    """
    image = interference_image(artefacts.zipper, artefacts.spikes, artefacts.encoding, scan_grid.shape)
    return None if image is None else image.to(device, dtype.to_complex())


def to_json(artefacts: Artefacts) -> dict[str, Any]:
    """Return the artefacts that are present and the encoding as JSON values; empty for an undisturbed scan."""
    if artefacts == NO_ARTEFACTS:
        return {}
    return {name: asdict(getattr(artefacts, name)) for name in (*artefacts.names, "encoding")}


def from_json(values: Mapping[str, Any]) -> Artefacts:
    """Read what `to_json` wrote, exactly.

    Raises:
        BadInputError: an unknown artefact or parameter, or one that is missing.
    """
    unknown = sorted(set(values) - set(_READERS))
    if unknown:
        raise BadInputError(f"unknown artefacts {unknown}; known are {sorted(_READERS)}")
    try:
        return Artefacts(**{name: _READERS[name](block) for name, block in values.items()})
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"these artefacts are not complete or not of this version: {error}") from None


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "bias": lambda block: ReceiveBias(**block),
    "b0": lambda block: B0Distortion(**block),
    "concomitant": lambda block: ConcomitantWarp(**block),
    "motion": lambda block: ShotMotion(tuple(ShotPose(**p) for p in block["poses"]), block["interleaved"]),
    "ghost": lambda block: NyquistGhost(**block),
    "drift": lambda block: IntensityDrift(**block),
    "wrap": lambda block: Wrap(**block),
    "zipper": lambda block: Zipper(**block),
    "spikes": lambda block: Spikes(tuple(Spike(**s) for s in block["samples"])),
    "encoding": lambda block: AxisRoles(**block),
}
