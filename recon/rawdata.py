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

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.atomic import atomic_write
from mrcore.errors import BadInputError
from mrcore.grid import Grid
from mrcore.mrf_sequence import MrfSequence
from recon.trajectory import Trajectory

_REQUIRED = ("samples", "grid_shape", "grid_affine")
_TRAJECTORY = ("k_cyc_per_mm", "frame", "n_frames")
_SEQUENCE = ("flip_deg", "tr_s", "te_s")


@dataclass(frozen=True, eq=False)
class RawData:
    """Samples `samples` (C, N) complex of a `trajectory` of N points, with `noise` (C, M) complex and a `sequence`.

    `noise` holds samples without a signal, as a noise scan gives them; None where there was none. `sequence` has one
    excitation a frame; None where it is not known.

    Raises:
        BadInputError: samples that do not fit the trajectory, are not complex or not finite; a sequence of another
            number of frames; noise of other channels.
    """

    samples: Tensor
    trajectory: Trajectory
    noise: Tensor | None = None
    sequence: MrfSequence | None = None

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
        return RawData(self.samples.to(device), self.trajectory, noise, self.sequence)


def write_npz(raw: RawData, path: Path, *, force: bool = False) -> None:
    """Write raw data to a file of the format above, whole or not at all.

    Raises:
        BadInputError: the file exists and `force` is off, or it cannot be written.
    """
    trajectory, sequence = raw.trajectory, raw.sequence
    arrays: dict[str, Any] = {
        "samples": raw.samples.cpu().numpy(),
        "k_cyc_per_mm": trajectory.k_cyc_per_mm.cpu().numpy(),
        "frame": trajectory.frame.cpu().numpy(),
        "n_frames": trajectory.n_frames,
        "grid_shape": np.array(raw.grid.shape),
        "grid_affine": raw.grid.affine,
    }
    if raw.noise is not None:
        arrays["noise"] = raw.noise.cpu().numpy()
    if sequence is not None:
        arrays |= {name: getattr(sequence, name).numpy() for name in _SEQUENCE}
        arrays["inversion_efficiency"] = sequence.inversion_efficiency
        if sequence.phase_deg is not None:
            arrays["phase_deg"] = sequence.phase_deg.numpy()
        if sequence.ti_s is not None:
            arrays["ti_s"] = sequence.ti_s
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_npz(
    path: Path, *, sequence: MrfSequence | None = None, trajectory: Callable[[Grid], Trajectory] | None = None
) -> RawData:
    """Return the raw data of a file of the format above; `sequence` and `trajectory` stand for those of the file.

    Raises:
        BadInputError: a file that cannot be read, arrays that are missing or do not fit one another.
    """
    arrays = _arrays(path)
    missing = [name for name in (*(() if trajectory else _TRAJECTORY), *_REQUIRED) if name not in arrays]
    if missing:
        raise BadInputError(f"{path} lacks {', '.join(missing)}; it has {', '.join(arrays)}")
    try:
        shape = [int(n) for n in arrays["grid_shape"].reshape(-1)]
        grid = Grid((shape[0], shape[1], shape[2]) if len(shape) == 3 else (0, 0, 0), arrays["grid_affine"])
        samples = torch.from_numpy(arrays["samples"])
        noise = torch.from_numpy(arrays["noise"]) if "noise" in arrays else None
        sequence = _sequence(arrays, path) if sequence is None else sequence
        placed = trajectory(grid) if trajectory else trajectory_of_arrays(arrays, grid, path)
    except BadInputError:
        raise
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{path}: an array is not of the format: {error}; see recon.rawdata") from error
    return RawData(samples, placed, noise, sequence)


def trajectory_of_arrays(arrays: Mapping[str, NDArray[Any]], grid: Grid, path: Path) -> Trajectory:
    """Return the trajectory that the arrays of the file `path` describe."""
    k, frame = arrays["k_cyc_per_mm"], arrays["frame"]
    if not np.issubdtype(frame.dtype, np.integer) or not np.issubdtype(k.dtype, np.floating):
        raise BadInputError(f"{path}: frame must hold integers and k_cyc_per_mm real numbers")
    if arrays["n_frames"].size != 1 or not np.issubdtype(arrays["n_frames"].dtype, np.integer):
        raise BadInputError(f"{path}: n_frames must be one whole number, got {arrays['n_frames']!r}")
    wide = k if k.dtype == np.float32 else k.astype(np.float64)
    return Trajectory(
        torch.from_numpy(wide), torch.from_numpy(frame.astype(np.int64)), int(arrays["n_frames"].item()), grid
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here, since numpy leaves a file that it cannot read open.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BadInputError(f"{path} cannot be read as raw data (.npz): {error}; is the file whole?") from error


def _sequence(arrays: Mapping[str, NDArray[Any]], path: Path) -> MrfSequence | None:
    """Return the sequence that the arrays describe, None where there is none."""
    present = [name for name in _SEQUENCE if name in arrays]
    if not present:
        return None
    if len(present) < len(_SEQUENCE):
        raise BadInputError(f"{path} has {', '.join(present)}; a sequence needs {', '.join(_SEQUENCE)}")
    flip_deg, tr_s, te_s = (torch.from_numpy(np.asarray(arrays[name], np.float64)) for name in _SEQUENCE)
    phase = torch.from_numpy(np.asarray(arrays["phase_deg"], np.float64)) if "phase_deg" in arrays else None
    ti_s = float(arrays["ti_s"]) if "ti_s" in arrays else None
    return MrfSequence(flip_deg, tr_s, te_s, ti_s, float(arrays.get("inversion_efficiency", np.ones(()))), phase)


def _check_samples(name: str, values: Tensor) -> None:
    if values.ndim != 2 or not values.is_complex():
        raise BadInputError(f"{name} must be complex (coils, samples), got {values.dtype} {tuple(values.shape)}")
    if not values.numel():
        raise BadInputError(f"{name} are empty, {tuple(values.shape)}: are coils missing?")
    bad = int((~torch.isfinite(torch.view_as_real(values))).any(-1).sum())
    if bad:
        raise BadInputError(f"{bad} of {values.numel()} {name} are NaN or infinite; leave those readouts out")
