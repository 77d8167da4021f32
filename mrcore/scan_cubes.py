"""Training pairs as they pass from a simulator to a network: cubes of objects and their scans by one operator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Triple
from mrcore.operators.separable import SeparableOp


@dataclass(frozen=True, eq=False, repr=False)
class ScanCubes(Brief):
    """A batch of objects and their magnitude scans; bright tissue of the whole brain is about 1.

    Attributes:
        truth: objects (B, X, Y, Z) on a lattice along the scan's axes, the slice axis last.
        brain: what belongs to the brain (B, X, Y, Z), bool.
        scan: magnitudes (B, x, y, z) with noise.
        noise_sd: what is stated of the noise (B,), per real channel; the scan's own may differ, as in practice.
        operator: the stated operator from object to scan; the scan's own may differ by as much as headers err.
        voxel_mm: size of a scan voxel.
        lattice_mm: size of an object voxel.
    """

    truth: Tensor
    brain: Tensor
    scan: Tensor
    noise_sd: Tensor
    operator: SeparableOp
    voxel_mm: Triple
    lattice_mm: float

    def to(self, device: torch.device | str) -> ScanCubes:
        """Return the batch on `device`."""
        return replace(
            self,
            truth=self.truth.to(device),
            brain=self.brain.to(device),
            scan=self.scan.to(device),
            noise_sd=self.noise_sd.to(device),
            operator=self.operator.to(device),
        )
