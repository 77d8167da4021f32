"""The audit of any image against its scan: residuals, drift and what of it the scan cannot see, as findings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iqt.audit.drift import FAR_VOXELS, Drift, image_drift
from iqt.audit.residual import ALARM_Z, ResidualMap, residual_map
from mrcore.data.acquisition import Psf
from mrcore.data.brief import Brief
from mrcore.data.grid import Triple, to_world
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.notes import Caution


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Brief):
    """What an image's own scan says of it.

    Attributes:
        residual: where the image does not give the scan back.
        drift: how far it lies from it.
        predicted: the scan that the image would have given, on the scan's grid, in its intensities.
        scale: factor of intensity that was fitted between both; 1 where they share their unit.
        offset: fitted with it, in the scan's intensities; 0 where they share their unit.
    """

    residual: ResidualMap
    drift: Drift
    predicted: Volume
    scale: float
    offset: float

    @property
    def findings(self) -> tuple[str, ...]:
        """The verdict, alarms first."""
        worst, at = self.residual.worst, to_world(self.predicted.grid, torch.tensor(self.residual.voxel).numpy())
        place = ", ".join(f"{v:.0f}" for v in at)
        kind = "the scan is brighter than" if worst > 0 else "the scan is darker than"
        where = f"largest local residual {worst:+.1f} sd at ({place}) mm, where {kind} the image accounts for"
        moved = (
            f"shift {_triple(self.drift.shift_mm)} mm, turn {_triple(self.drift.turn_deg)} deg, local displacement up "
            f"to {self.drift.largest_mm:.2f} mm ({self.drift.largest_voxels:.2f} scan voxels)"
        )
        alarms = [
            Caution(f"not supported by the scan: {where} (alarm above {ALARM_Z:g})") if self.residual.alarm else "",
            Caution(f"does not lie where the scan does: {moved} (alarm above {FAR_VOXELS:g} voxels)")
            if self.drift.alarm
            else "",
        ]
        calm = [
            "" if self.residual.alarm else where,
            "" if self.drift.alarm else moved,
            f"residual in the brain {self.residual.rms:.2f} times the noise (1 of a right image; blind to small "
            "structures)",
        ]
        return tuple(text for text in (*alarms, *calm) if text)


def audit_image(
    scan: Volume,
    image: Volume,
    psf: Psf,
    noise_sd: float,
    mask: Tensor,
    *,
    noise_fwhm_voxels: Triple = (0.0, 0.0, 0.0),
    same_units: bool = False,
) -> Audit:
    """Check `image`, any grid in the same world, against the magnitude `scan` it claims to show, inside `mask`.

    `psf` and `noise_sd` (per real channel) describe the scan, `mask` (bool) lies on its grid. Without `same_units` a
    factor and an offset of intensity are fitted first: what a change of contrast needs beyond them shows as residual.

    Raises:
        BadInputError: image and scan that do not overlap, a mask of another shape, an image without contrast.
    """
    operator = imaging_operator(image.grid, scan.grid, psf, dtype=image.data.dtype)
    predicted = operator(image.data)
    scale, offset = (1.0, 0.0) if same_units else _intensity(scan.data, predicted, mask)
    predicted = scale * predicted + offset
    voxel_mm = scan.grid.spacing_mm
    return Audit(
        residual_map(scan.data, predicted.clamp_min(0), noise_sd, voxel_mm, mask, noise_fwhm_voxels),
        image_drift(scan.data, predicted, voxel_mm, mask),
        Volume(predicted, scan.grid),
        scale,
        offset,
    )


def _intensity(scan: Tensor, predicted: Tensor, mask: Tensor) -> tuple[float, float]:
    if scan.shape != mask.shape:
        raise BadInputError(f"the mask must be on the scan's grid, {tuple(scan.shape)}, got {tuple(mask.shape)}")
    x, y = predicted[mask].double(), scan[mask].double()
    spread = x.var()
    if not float(spread) > 0:
        raise BadInputError("the image has no contrast inside the mask; it cannot be compared with the scan")
    scale = float(((x - x.mean()) * (y - y.mean())).mean() / spread)
    return scale, float(y.mean() - scale * x.mean())


def _triple(values: Triple) -> str:
    return "(" + ", ".join(f"{v:+.2f}" for v in values) + ")"
