"""Raw data in .npz files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write
from mrcore.signals.mrf_sequence import MrfSequence
from recon.rawdata import RawData
from recon.trajectories.extent import trajectory_in, unit_cautions
from recon.trajectories.trajectory import Trajectory
from recon.trajectories.units import worth_cyc_per_mm

_REQUIRED = ("samples", "grid_shape", "grid_affine")


_TRAJECTORY = ("k_cyc_per_mm", "frame", "n_frames")


_SEQUENCE = ("flip_deg", "tr_s", "te_s")


def write_npz(raw: RawData, path: str | Path, *, force: bool = False) -> None:
    """Write raw data to a file of the format above, whole or not at all.

    Raises:
        BadInputError: the file exists and `force` is off, or it cannot be written.
    """
    path = Path(path)
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
    path: str | Path,
    *,
    sequence: MrfSequence | None = None,
    trajectory: Callable[[Grid], Trajectory] | None = None,
    k_unit: str = "cycles/mm",
) -> RawData:
    """Return the raw data of a file of the format above; `sequence` and `trajectory` stand for those of the file.

    `k_unit`, one of `K_UNITS`, is for files whose positions are not in the unit that their name says.

    Raises:
        BadInputError: a file that cannot be read, arrays that are missing or do not fit one another.
    """
    path = Path(path)
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
        placed = trajectory(grid) if trajectory else trajectory_of_arrays(arrays, grid, path, k_unit)
    except BadInputError:
        raise
    except (TypeError, ValueError) as error:
        raise BadInputError(f"{path}: an array is not of the format: {error}; see recon.rawdata") from error
    notes = () if trajectory else unit_cautions(placed, k_unit)
    return RawData(samples, placed, noise, sequence, notes)


def trajectory_of_arrays(
    arrays: Mapping[str, NDArray[Any]], grid: Grid, path: Path, k_unit: str = "cycles/mm"
) -> Trajectory:
    """Return the trajectory that the arrays of the file `path` describe."""
    k, frame = arrays["k_cyc_per_mm"], arrays["frame"]
    if not np.issubdtype(frame.dtype, np.integer) or not np.issubdtype(k.dtype, np.floating):
        raise BadInputError(f"{path}: frame must hold integers and k_cyc_per_mm real numbers")
    if arrays["n_frames"].size != 1 or not np.issubdtype(arrays["n_frames"].dtype, np.integer):
        raise BadInputError(f"{path}: n_frames must be one whole number, got {arrays['n_frames']!r}")
    wide = torch.from_numpy(k if k.dtype == np.float32 else k.astype(np.float64))
    worth = torch.from_numpy(worth_cyc_per_mm(k_unit, grid.spacing_mm, grid.fov_mm))
    if k_unit != "cycles/mm" and wide.ndim == 2 and wide.shape[1] in (2, 3):
        wide = wide * worth[: wide.shape[1]].to(wide)
    frames = torch.from_numpy(frame.astype(np.int64))
    return trajectory_in(k_unit, wide, frames, int(arrays["n_frames"].item()), grid)


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
