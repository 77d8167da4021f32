"""ISMRMRD files (.h5) of raw data: reading and writing, by h5py.

What of the format is used: the header's encoded and reconstructed space, encoding limits and, as a fingerprint's
train, lists of TR, TE, TI and flip angles; each acquisition's data, trajectory, counters, place in the patient (LPS)
and flags. Inati et al., MRM 2017;77:411; https://ismrmrd.readthedocs.io.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrcore.data.grid import Grid, Triple, directions, grid_about
from mrcore.errors import BadInputError, MissingExtraError
from mrcore.io.atomic import atomic_write
from mrcore.signals.mrf_sequence import MrfSequence
from recon.files.ismrmrd_header import Header, Space, header_text, parse_header
from recon.files.ismrmrd_lines import COMPRESSED, COUNTERS, HEAD, NOISE, REVERSE, flagged, is_imaging, notes_on_lines
from recon.rawdata import RawData
from recon.trajectories.extent import trajectory_in, unit_cautions
from recon.trajectories.trajectory import Trajectory
from recon.trajectories.units import worth_cyc_per_mm

_FRAME_COUNTERS = ("repetition", "contrast")
_LONGEST = 65_535  # samples that one acquisition can hold
_LPS = np.array([-1.0, -1.0, 1.0])


def read_ismrmrd(
    path: str | Path,
    *,
    sequence: MrfSequence | None = None,
    trajectory: Callable[[Grid], Trajectory] | None = None,
    frame_counter: str | None = None,
    k_unit: str = "cycles/voxel",
    fov_mm: Triple | None = None,
    slice_index: int | None = None,
    encoding: int | None = None,
    dataset: str = "dataset",
) -> RawData:
    """Return the raw data of an ISMRMRD file.

    Frames: the counter `frame_counter` of the acquisitions' `idx`; None takes `repetition`, else `contrast`, whichever
    varies first, else the order in time: each acquisition is a frame, and a `sequence` shorter than the acquisitions
    is taken to have been repeated. The `sequence` is that of the header where None is given and the header lists it.
    Trajectories are those stored, in `k_unit`, one of `K_UNITS`: `cycles/voxel` of the encoded space (-0.5 to 0.5) is
    what the format suggests; Cartesian data without one take it from the encoding counters and limits; `trajectory`,
    from the image's grid, stands for all of these, frames included. Noise acquisitions become `noise`; calibration,
    navigators and the like are left out, with a note. `fov_mm` replaces a field of view that the header lacks;
    `slice_index` chooses one of several slices, `encoding` one of several encodings that acquisitions refer to.

    Raises:
        MissingExtraError: h5py is not installed.
        BadInputError: a file that cannot be read, is cut off or lacks what is needed; coils that are missing.
    """
    path = Path(path)
    header, table = _opened(path, dataset)
    head, data, traj = (table[name] for name in ("head", "data", "traj"))
    images = np.flatnonzero(is_imaging(head["flags"]))
    images = _chosen(images, head["encoding_space_ref"][images], encoding, "encoding", path)
    images = _chosen(images, head["idx"]["slice"][images], slice_index, "slice", path)
    space = header.space(int(head["encoding_space_ref"][images[0]]), path, fov_mm)
    n_coils = _n_coils(head[images], header, path)
    sequence = header.sequence() if sequence is None else sequence
    grid = _grid(head[images[0]], space)
    notes: tuple[str, ...] = (*notes_on_lines(head["flags"]), *space.cautions)
    samples = [_image_samples(i, head, data, path) for i in images.tolist()]
    if trajectory is None:
        frames, n_frames = _frames(head["idx"][images], space, frame_counter, sequence, path)
        points = [_positions(i, head, traj, space, k_unit, path)[_kept(i, head, path)] for i in images.tolist()]
        frame = np.repeat(frames, [len(k) for k in points])
        k, mm = _tensor(np.concatenate(points)), (space.encoded_voxel_mm, space.encoded_fov_mm)
        if bool(head["trajectory_dimensions"][images].any()):
            placed = trajectory_in(k_unit, k, _tensor(frame), n_frames, grid, *mm)
            notes += unit_cautions(placed, k_unit, *mm)
        else:
            placed = Trajectory(k, _tensor(frame), n_frames, grid)
    else:
        placed = trajectory(grid)
    noise = _noise(head, data, n_coils, path)
    return RawData(_tensor(np.concatenate(samples, axis=1)), placed, noise, sequence, notes)


def write_ismrmrd(raw: RawData, path: str | Path, *, force: bool = False) -> None:
    """Write raw data as an ISMRMRD file, whole or not at all: an acquisition for each run of samples of one frame.

    The frame is the counter `repetition`; trajectories are in cycles/voxel.

    Raises:
        MissingExtraError: h5py is not installed.
        BadInputError: the file exists and `force` is off, or the sequence has RF phases or an imperfect inversion,
            for which the format has no place (a file .npz has).
    """
    path = Path(path)
    h5py = _h5py()
    text = header_text(raw)
    acquisitions = list(_acquisitions(raw))
    of_floats = h5py.vlen_dtype(np.float32)
    table = np.empty(len(acquisitions), np.dtype([("head", HEAD), ("traj", of_floats), ("data", of_floats)]))
    for i, (head, k, samples) in enumerate(acquisitions):
        head["scan_counter"] = i
        floats = np.ascontiguousarray(samples.numpy().astype(np.complex64)).view(np.float32).reshape(-1)
        table[i] = (head, k.numpy().astype(np.float32).reshape(-1), floats)
    with atomic_write(path, force=force) as temporary, h5py.File(temporary, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("xml", data=[text], dtype=h5py.string_dtype())
        group.create_dataset("data", data=table, maxshape=(None,))


def _opened(path: Path, dataset: str) -> tuple[Header, NDArray[Any]]:
    """Return header and table of acquisitions of a file."""
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            group = file[dataset]
            text, table = group["xml"][0], group["data"][()]
        text = text.decode() if isinstance(text, bytes) else str(text)
        lacking = [name for name in ("head", "data", "traj") if name not in (table.dtype.names or ())]
        lacking += [] if lacking else sorted(set(HEAD.names or ()) - set(table["head"].dtype.names or ()))
        if lacking:
            raise ValueError(f"acquisitions have no {', '.join(lacking)}")
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise BadInputError(f"{path} cannot be read as ISMRMRD ({error}); is the file whole?") from error
    return parse_header(text, path), table


def _acquisitions(raw: RawData) -> Iterator[tuple[NDArray[Any], torch.Tensor, torch.Tensor]]:
    """Yield the head, trajectory (n, 3) in cycles/voxel and samples (coils, n) of each acquisition, noise first."""
    none = torch.zeros((0, 3))
    if raw.noise is not None:
        for part in torch.split(raw.noise.cpu(), _LONGEST, dim=1):
            head = _head(raw.grid, part.shape[1], raw.n_coils)
            head["flags"] = 1 << (NOISE - 1)
            yield head, none, part
    k = raw.trajectory.k_cyc_per_mm * torch.tensor(raw.grid.spacing_mm, dtype=raw.trajectory.k_cyc_per_mm.dtype)
    frames, lengths = torch.unique_consecutive(raw.trajectory.frame, return_counts=True)
    start = 0
    for frame, length in zip(frames.tolist(), lengths.tolist(), strict=True):
        for begin in range(start, start + length, _LONGEST):
            here = slice(begin, min(begin + _LONGEST, start + length))
            head = _head(raw.grid, here.stop - here.start, raw.n_coils)
            head["trajectory_dimensions"] = 3
            head["idx"]["repetition"] = frame
            yield head, k[here], raw.samples[:, here].cpu()
        start += length


def _head(grid: Grid, n_samples: int, n_coils: int) -> NDArray[Any]:
    head = np.zeros((), HEAD)
    head["version"], head["number_of_samples"] = 1, n_samples
    head["available_channels"] = head["active_channels"] = n_coils
    head["position"] = grid.origin_mm * _LPS
    for name, direction in zip(("read_dir", "phase_dir", "slice_dir"), directions(grid).T, strict=True):
        head[name] = direction * _LPS
    return head


def _grid(head: NDArray[Any], space: Space) -> Grid:
    axes = np.stack([head[name] for name in ("read_dir", "phase_dir", "slice_dir")], axis=1).astype(np.float64)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        axes = np.diag(_LPS)  # no directions stored: RAS
    return grid_about(head["position"] * _LPS, _LPS[:, None] * axes, space.voxel_mm, space.matrix)


def _frames(
    idx: NDArray[Any], space: Space, counter: str | None, sequence: MrfSequence | None, path: Path
) -> tuple[NDArray[np.int64], int]:
    """Return the frame of each acquisition and the number of frames."""
    if counter is not None and counter not in COUNTERS:
        raise BadInputError(f"there is no counter {counter!r}; there are {', '.join(COUNTERS)}")
    varying = [name for name in _FRAME_COUNTERS if len(np.unique(idx[name])) > 1]
    counter = counter or (varying[0] if varying else None)
    if counter is not None:
        values = idx[counter].astype(np.int64)
        first, last = space.limits.get(counter, (int(values.min()), int(values.max()), 0))[:2]
        if values.min() < first or values.max() > last:
            raise BadInputError(
                f"{path}: {counter} goes from {values.min()} to {values.max()}, but the header limits it to "
                f"{first} to {last}"
            )
        return values - first, last - first + 1
    n_frames = len(idx) if sequence is None else sequence.n_frames
    if len(idx) % n_frames:
        raise BadInputError(
            f"{path} has {len(idx)} acquisitions, no multiple of the {n_frames} frames of the sequence; give the train "
            "that they were acquired with, or the counter that says the frame"
        )
    return np.arange(len(idx)) % n_frames, n_frames


def _positions(
    i: int, head: NDArray[Any], traj: NDArray[Any], space: Space, k_unit: str, path: Path
) -> NDArray[np.float64]:
    """Return where the samples of acquisition `i` lie, (samples, 3) in cycles/mm."""
    n, dimensions = int(head["number_of_samples"][i]), int(head["trajectory_dimensions"][i])
    k = np.zeros((n, 3))
    if dimensions == 0:
        if space.trajectory != "cartesian":
            raise BadInputError(f"{path} is {space.trajectory} but acquisition {i} has no trajectory; it must be given")
        k[:, 0] = np.arange(n) - int(head["center_sample"][i])
        for axis, name in ((1, "kspace_encode_step_1"), (2, "kspace_encode_step_2")):
            if space.encoded_matrix[axis] > 1:
                centre = space.limits.get(name, (0, 0, space.encoded_matrix[axis] // 2))[2]
                k[:, axis] = int(head["idx"][name][i]) - centre
        k /= np.array(space.encoded_fov_mm)
        return k
    if len(traj[i]) != n * dimensions:
        raise BadInputError(f"{path}: acquisition {i} has {len(traj[i])} trajectory numbers, not {n} x {dimensions}")
    # A fourth column, where there is one, is a weight.
    k[:, : min(dimensions, 3)] = traj[i].reshape(n, dimensions)[:, :3]
    k *= worth_cyc_per_mm(k_unit, space.encoded_voxel_mm, space.encoded_fov_mm)
    return k


def _channels(i: int, head: NDArray[Any], data: NDArray[Any], path: Path) -> NDArray[np.complex64]:
    n_coils, n = int(head["active_channels"][i]), int(head["number_of_samples"][i])
    if len(data[i]) != 2 * n_coils * n:
        if bool(flagged(head["flags"][i], *COMPRESSED)):
            raise BadInputError(f"{path}: acquisition {i} is flagged as compressed; write the file without compression")
        raise BadInputError(
            f"{path}: acquisition {i} holds {len(data[i]) // 2} samples, not {n_coils} channels of {n}: "
            "are coils missing, or is the file cut off?"
        )
    samples: NDArray[np.complex64] = np.ascontiguousarray(data[i], np.float32).view(np.complex64).reshape(n_coils, n)
    return samples


def _image_samples(i: int, head: NDArray[Any], data: NDArray[Any], path: Path) -> NDArray[np.complex64]:
    """Return the samples (coils, n) of acquisition `i` that are kept, in the order of `_positions`."""
    samples = _channels(i, head, data, path)
    return (samples[:, ::-1] if _is_backwards(i, head) else samples)[:, _kept(i, head, path)]


def _kept(i: int, head: NDArray[Any], path: Path) -> slice:
    """Return which samples of acquisition `i`, in the order of `_positions`, are not to be discarded."""
    n, before, after = (int(head[name][i]) for name in ("number_of_samples", "discard_pre", "discard_post"))
    if before + after >= n:
        raise BadInputError(f"{path}: of the {n} samples of acquisition {i}, {before} and {after} are to be discarded")
    return slice(after, n - before) if _is_backwards(i, head) else slice(before, n - after)


def _is_backwards(i: int, head: NDArray[Any]) -> bool:
    """Whether a line that says no positions was read from its end."""
    return bool(flagged(head["flags"][i], REVERSE)) and not int(head["trajectory_dimensions"][i])


def _noise(head: NDArray[Any], data: NDArray[Any], n_coils: int, path: Path) -> torch.Tensor | None:
    """Return the samples (coils, n) of all noise acquisitions together, None where there are none."""
    parts = [_channels(i, head, data, path) for i in np.flatnonzero(flagged(head["flags"], NOISE)).tolist()]
    if any(len(part) != n_coils for part in parts):
        raise BadInputError(f"{path}: noise acquisitions have other channels than the {n_coils} of the data")
    return _tensor(np.concatenate(parts, axis=1)) if parts else None


def _n_coils(head: NDArray[Any], header: Header, path: Path) -> int:
    counts = np.unique(head["active_channels"]).tolist()
    wanted = counts[0] if header.n_coils is None else header.n_coils
    if counts != [wanted]:
        named = " and ".join(map(str, counts))
        raise BadInputError(f"{path}: acquisitions have {named} channels, expected {wanted} in all: coils are missing")
    return int(wanted)


def _chosen(images: NDArray[Any], values: NDArray[Any], wanted: int | None, name: str, path: Path) -> NDArray[Any]:
    """Return the lines whose slice or encoding is the one that is wanted, or the only one."""
    present = np.unique(values).tolist()
    listed = ", ".join(map(str, present))
    if wanted is None and len(present) > 1:
        raise BadInputError(f"{path} has the {name}s {listed}; choose one by its index (--{name})")
    chosen = images if wanted is None else images[values == wanted]
    if not len(chosen):
        which = f" of {name} {wanted}; there are {name}s {listed}" if present else ""
        raise BadInputError(f"{path} has no image acquisition{which}")
    return chosen


def _tensor(values: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _h5py() -> Any:  # noqa: ANN401  a library without types
    try:
        return import_module("h5py")
    except ImportError as error:
        raise MissingExtraError("ISMRMRD files need h5py: pip install 'mrkit[ismrmrd]'") from error
