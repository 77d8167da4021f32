"""A fitted subject as a function of the position, rendered on any grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inr.fields.base import Field, FieldDesign, slabs_of
from inr.fitting.fit import Fit, FitSettings
from mrcore.data.brief import Brief
from mrcore.data.grid import Grid, to_world
from mrcore.data.volume import TissueMap, Volume
from mrcore.errors import BadInputError
from mrcore.spatial.resampling import resample


@dataclass(frozen=True, eq=False, repr=False)
class FittedField(Brief):
    """All that renders one subject: a field, and what its outputs are added to on its own lattice.

    Attributes:
        field: its `grid` is the lattice of the fit.
        design: of which the field was built.
        first: (C + T, n_points), starts and first logits on the foreground.
        foreground: bool (X, Y, Z), where there is an image.
        brain: bool (X, Y, Z), where there are tissues.
        names: of the tissues; a last logit without a name is background.
        scale: units of the scan for an intensity of 1.
        n_contrasts: C, the images among the outputs, which come first.

    Raises:
        BadInputError: parts whose shapes do not belong together.
    """

    field: Field
    design: FieldDesign
    first: Tensor
    foreground: Tensor
    brain: Tensor
    names: tuple[str, ...]
    scale: float = 1.0
    n_contrasts: int = 1

    def __post_init__(self) -> None:
        expected = (self.field.n_outputs, int(self.foreground.sum()))
        if tuple(self.first.shape) != expected:
            raise BadInputError(f"the first state needs the shape {expected}, got {tuple(self.first.shape)}")
        for mask in (self.foreground, self.brain):
            if tuple(mask.shape) != self.field.grid.shape or mask.dtype != torch.bool:
                raise BadInputError(f"masks are boolean on the lattice {self.field.grid.shape}, got {mask.shape}")
        n_logits = self.field.n_outputs - self.n_contrasts
        if self.n_contrasts < 1 or n_logits - len(self.names) not in (0, 1):
            raise BadInputError(f"{n_logits} logits do not belong to the tissues {list(self.names)}")


def fitted_field(done: Fit, settings: FitSettings, names: tuple[str, ...], scale: float = 1.0) -> FittedField:
    """Return what renders the result of `fit`, made with `settings`; `scale` is the intensity of WM in the scan."""
    return FittedField(
        done.field, settings.field, done.first, done.foreground, done.brain, names, scale, len(done.images)
    )


def render(fitted: FittedField, grid: Grid, contrast: int = 0) -> tuple[Volume, TissueMap]:
    """Return one image and the tissues on `grid`, wherever it lies; outside the foreground both are 0.

    The start is interpolated with cubic splines, the first logits linearly; the field is evaluated where the voxels
    are. On the lattice of the fit the result is that of the fit.
    """
    if grid.matches(fitted.field.grid, 1e-9):
        with torch.no_grad():
            outputs = fitted.first + fitted.field.evaluate(slabs_of(fitted.foreground))
        return _assembled(fitted, outputs, fitted.foreground, fitted.brain, grid, contrast)
    foreground = _masked(fitted, fitted.foreground, grid)
    brain = _masked(fitted, fitted.brain, grid) & foreground
    outputs = _first_on(fitted, grid, foreground) + _field_on(fitted.field, grid, foreground)
    return _assembled(fitted, outputs, foreground, brain, grid, contrast)


def _assembled(
    fitted: FittedField, outputs: Tensor, foreground: Tensor, brain: Tensor, grid: Grid, contrast: int
) -> tuple[Volume, TissueMap]:
    image = torch.zeros(grid.shape, device=outputs.device)
    image[foreground] = outputs[contrast].clamp_min(0) * fitted.scale
    prob = torch.zeros(len(fitted.names), *grid.shape, device=outputs.device)
    shares = torch.softmax(outputs[fitted.n_contrasts :, brain[foreground]], 0)
    prob[:, brain] = shares[: len(fitted.names)]
    return Volume(image, grid), TissueMap(prob, fitted.names, grid)


def _masked(fitted: FittedField, mask: Tensor, grid: Grid) -> Tensor:
    return resample(Volume(mask.float(), fitted.field.grid), grid, order=1).data > 0.5


def _first_on(fitted: FittedField, grid: Grid, foreground: Tensor) -> Tensor:
    """Interpolate start and first logits at the foreground of `grid`; logits from brain voxels alone."""
    lattice = fitted.field.grid

    def on_grid(values: Tensor, where: Tensor, order: int) -> Tensor:
        whole = values.new_zeros(lattice.shape)
        whole[where] = values
        return resample(Volume(whole, lattice), grid, order).data[foreground]

    in_brain = fitted.brain[fitted.foreground]
    share = on_grid(torch.ones_like(fitted.first[0, in_brain]), fitted.brain, 1).clamp_min(1e-3)
    n_images = fitted.n_contrasts
    images = [on_grid(row, fitted.foreground, 3) for row in fitted.first[:n_images]]
    logits = [on_grid(row[in_brain], fitted.brain, 1) / share for row in fitted.first[n_images:]]
    return torch.stack([*images, *logits])


def _field_on(field: Field, grid: Grid, foreground: Tensor) -> Tensor:
    """Evaluate the field at the foreground of `grid`, plane by plane."""
    parts = []
    for i, plane in enumerate(foreground):
        at = plane.nonzero().cpu().numpy()
        voxels = np.concatenate([np.full((len(at), 1), i), at], 1)
        with torch.no_grad():
            parts.append(field(torch.from_numpy(to_world(grid, voxels))))
    return torch.cat(parts, 1)
