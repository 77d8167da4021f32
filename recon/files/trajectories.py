"""Trajectories from files: numpy, MATLAB, text and Pulseq.

`.npz`    `k_cyc_per_mm` (N, 2 or 3), `frame` (N,) from 0 and `n_frames`, as in files of raw data
`.mat`    one array (samples, arms, 2 or 3), or complex (samples, arms); MATLAB 7.3 needs h5py
`.seq`    Pulseq sequences, through pypulseq
else      text of two or three columns, arm after arm
"""

from __future__ import annotations

import zipfile
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, MissingExtraError
from recon.files.matlab import mat_arrays
from recon.files.npz import trajectory_of_arrays
from recon.trajectories.trajectory import Trajectory

_FAULTS = (
    OSError,
    ValueError,
    EOFError,
    NotImplementedError,
    AttributeError,
    IndexError,  # of a MATLAB file cut off in its header
    MatReadError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_trajectory(path: str | Path, grid: Grid, k_unit: str = "cycles/mm") -> Trajectory:
    """Return the trajectory of an `.npz` file, whose positions are in `k_unit` where not in the unit of their name.

    Raises:
        BadInputError: a file that is no such trajectory, or does not fit the grid.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("k_cyc_per_mm", "frame", "n_frames") if name in file.files}
    except _FAULTS as error:
        raise BadInputError(f"{path} cannot be read as a trajectory (.npz): {error}; is the file whole?") from error
    missing = {"k_cyc_per_mm", "frame", "n_frames"} - set(arrays)
    if missing:
        raise BadInputError(f"{path} lacks {', '.join(sorted(missing))}; see recon.files.trajectories")
    return trajectory_of_arrays(arrays, grid, path, k_unit)


def read_arms(path: str | Path, n_arms: int | None = None) -> Tensor:
    """Return the arms (arms, samples, 2 or 3) of a `.mat` or text file, float64, in the unit of the file.

    Text needs `n_arms`, and holds that many of equal length.

    Raises:
        BadInputError: a file that is not of the format above, or whose rows do not make up `n_arms`.
    """
    path = Path(path)
    try:
        array = (
            _mat_arms(path)
            if path.suffix == ".mat"
            else np.loadtxt(path, ndmin=2, delimiter=_delimiter(path), encoding="utf-8-sig")
        )
    except _FAULTS as error:
        raise BadInputError(f"{path} cannot be read as a trajectory: {error}") from error
    if array.ndim == 2:
        if n_arms is None or n_arms < 1 or len(array) % n_arms:
            raise BadInputError(f"{path} has {len(array)} rows, which are not {n_arms} arms of equal length")
        array = array.reshape(n_arms, -1, array.shape[1])
    if array.shape[2] not in (2, 3):
        raise BadInputError(f"{path}: expected two or three columns, kx, ky and kz, got {array.shape[2]}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))


def read_pulseq_arms(path: str | Path) -> Tensor:
    """Return the arms (arms, samples, 3) of a Pulseq sequence in cycles/m, one for each acquisition, in their order.

    k starts anew with every excitation. The axes are those of the gradients, x, y and z.

    Raises:
        BadInputError: a file that cannot be read, or whose acquisitions differ in length.
        MissingExtraError: pypulseq is not installed.
    """
    path = Path(path)
    try:
        pypulseq: Any = import_module("pypulseq")
    except ImportError as error:
        raise MissingExtraError("Pulseq files need pypulseq: pip install 'mrkit[pulseq]'") from error
    sequence = pypulseq.Sequence()
    try:
        sequence.read(str(path))
        k = np.asarray(sequence.calculate_kspace()[0]).T
        blocks = [sequence.get_block(number) for number in sequence.block_events]
        lengths = {int(block.adc.num_samples) for block in blocks if block.adc is not None}
    except (*_FAULTS, KeyError, TypeError, RuntimeError) as error:
        raise BadInputError(f"{path} cannot be read as a Pulseq sequence: {error}") from error
    if len(lengths) != 1:
        raise BadInputError(f"{path}: acquisitions must be of one length, found {sorted(lengths) or 'none'}")
    return torch.from_numpy(np.ascontiguousarray(k.reshape(-1, lengths.pop(), 3)))


def trajectory_of_arms(
    arms: Tensor, grid: Grid, n_frames: int, cyc_per_mm: float | tuple[float, ...] = 1.0
) -> Trajectory:
    """Return the trajectory whose frame t takes arm t modulo their number, of `arms` (arms, samples, 2 or 3).

    `cyc_per_mm` is what one unit of the arms is worth, of every axis or of each: 0.001 for cycles/m, one over the
    voxel size for cycles/voxel.

    Raises:
        BadInputError: arms of another shape; positions that another unit would explain.
    """
    if arms.ndim != 3 or arms.shape[2] not in (2, 3) or n_frames < 1:
        raise BadInputError(f"expected arms (arms, samples, 2 or 3) for at least one frame, got {tuple(arms.shape)}")
    if np.size(cyc_per_mm) > 1 and np.size(cyc_per_mm) < arms.shape[2]:
        raise BadInputError(f"cyc_per_mm must be one number or one for each of {arms.shape[2]} axes, got {cyc_per_mm}")
    unit = torch.tensor(cyc_per_mm, dtype=arms.dtype).expand(max(arms.shape[2], np.size(cyc_per_mm)))[: arms.shape[2]]
    k = (arms * unit)[torch.arange(n_frames) % len(arms)]
    return Trajectory(
        k.reshape(-1, arms.shape[2]), torch.arange(n_frames).repeat_interleave(k.shape[1]), n_frames, grid
    )


def _mat_arms(path: Path) -> NDArray[np.float64]:
    """Return the one array of arms of a MATLAB file, (arms, samples, 2 or 3)."""
    found = {
        name: values for name, values in mat_arrays(path).items() if _is_real_arms(values) or _is_complex_arms(values)
    }
    if len(found) != 1:
        raise ValueError(f"expected one array (samples, arms, 2 or 3) or complex (samples, arms), found {len(found)}")
    values: NDArray[Any] = next(iter(found.values()))
    stacked = np.stack((values.real, values.imag), -1) if np.iscomplexobj(values) else values
    return np.asarray(stacked.swapaxes(0, 1), dtype=np.float64)


def _is_real_arms(values: NDArray[Any]) -> bool:
    return values.ndim == 3 and values.shape[2] in (2, 3) and np.issubdtype(values.dtype, np.floating)


def _is_complex_arms(values: NDArray[Any]) -> bool:
    return values.ndim == 2 and np.iscomplexobj(values)


def _delimiter(path: Path) -> str | None:
    with path.open(encoding="utf-8-sig") as file:
        return "," if "," in file.readline() else None
