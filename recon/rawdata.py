"""Raw data of a fingerprint: samples with where in k-space and in which frame each was taken; as files of numpy.

A file `.npz` of raw data holds, by name:

    samples           (C, N)  complex   channels, samples of all frames in one row
    k_cyc_per_mm      (N, 2 or 3)       along the voxel axes, cycles per mm
    frame             (N,)    integer   the frame of each sample, from 0
    n_frames          ()      integer
    grid_shape        (3,)    integer   voxels X, Y, Z to reconstruct (Z = 1 in 2-D)
    grid_affine       (4, 4)            voxel index to RAS+ world, mm
    noise             (C, M)  complex   samples without a signal; optional
    flip_deg, tr_s, te_s      (frames,) the sequence; optional, with `phase_deg` (frames,), `ti_s` () and
                                        `inversion_efficiency` () where wanted
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.signals.mrf_sequence import MrfSequence
from recon.trajectories.trajectory import Trajectory


@dataclass(frozen=True, eq=False, repr=False)
class RawData(Brief):
    """Samples `samples` (C, N) complex of a `trajectory` of N points, with `noise` (C, M) complex and a `sequence`.

    `noise` holds samples without a signal, as a noise scan gives them; None where there was none. `sequence` has one
    excitation a frame; None where it is not known. `notes` say what was left out or assumed when they were read.

    Raises:
        BadInputError: samples that do not fit the trajectory, are not complex or not finite; a sequence of another
            number of frames; noise of other channels.
    """

    samples: Tensor
    trajectory: Trajectory
    noise: Tensor | None = None
    sequence: MrfSequence | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n_samples = len(self.trajectory.k_cyc_per_mm)
        _check_samples("samples", self.samples)
        if self.samples.shape[1] != n_samples:
            raise BadInputError(
                f"each of the {self.n_coils} coils has {self.samples.shape[1]} samples, the trajectory has {n_samples} "
                "points; they must be equal"
            )
        if self.noise is not None:
            _check_samples("noise", self.noise)
            if len(self.noise) != self.n_coils:
                raise BadInputError(
                    f"the noise scan has {len(self.noise)} coils, the samples have {self.n_coils}: are coils missing?"
                )
        if self.sequence is not None and self.sequence.n_frames != self.trajectory.n_frames:
            raise BadInputError(
                f"the sequence has {self.sequence.n_frames} frames, the data have {self.trajectory.n_frames}; give the "
                "train that they were acquired with, cut to the frames acquired"
            )

    @property
    def n_coils(self) -> int:
        """Number of channels."""
        return len(self.samples)

    @property
    def n_samples(self) -> int:
        """Number of samples of one channel, over all frames."""
        return self.samples.shape[1]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.trajectory.n_frames

    @property
    def grid(self) -> Grid:
        """The grid to reconstruct on."""
        return self.trajectory.grid

    def to(self, device: torch.device | str) -> RawData:
        """Return the data on a device; the trajectory stays where it is."""
        noise = None if self.noise is None else self.noise.to(device)
        return RawData(self.samples.to(device), self.trajectory, noise, self.sequence, self.notes)


def _check_samples(name: str, values: Tensor) -> None:
    if values.ndim != 2 or not values.is_complex():
        raise BadInputError(f"{name} must be complex (coils, samples), got {values.dtype} {tuple(values.shape)}")
    if not values.numel():
        raise BadInputError(f"{name} are empty, {tuple(values.shape)}: are coils missing?")
    bad = int((~torch.isfinite(torch.view_as_real(values))).any(-1).sum())
    if bad:
        raise BadInputError(f"{bad} of {values.numel()} {name} are NaN or infinite; leave those readouts out")
