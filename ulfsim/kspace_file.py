"""k-space of a simulation as a file: one .npz and its sidecar, ready to become an ISMRM raw data set.

The arrays hold what ISMRMRD asks for, so its own package (`pip install ismrmrd h5py`) makes a data set of them; with
`found = load_k_space(path)` and `x` as the readout, the first scan axis:

    data = ismrmrd.Dataset("scan.h5", "dataset", create_if_needed=True)
    for y, z in itertools.product(*map(range, found.data.shape[2:])):
        line = ismrmrd.Acquisition.from_array(found.data[:, :, y, z].numpy(), center_sample=found.data.shape[1] // 2)
        line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2 = y, z
        data.append_acquisition(line)

`found.grid.shape` and `.fov_mm` fill `encodedSpace` and `reconSpace` of the header, which both are the scan's matrix.
Directions of ISMRMRD are those of DICOM (left, posterior, superior): the columns of the affine with the first two rows
negated. Its samples are complex64.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.io.atomic import atomic_write, refuse_existing
from mrcore.io.sidecar import read_sidecar, sidecar_path, write_sidecar
from ulfsim.simulation import Simulation, k_space

_SUFFIX = ".npz"


@dataclass(frozen=True, eq=False, repr=False)
class KSpace(Brief):
    """Noisy k-space `data` (C, X, Y, Z, complex) of a scan on `grid`; `meta` is what its sidecar says.

    The transform is centred and orthonormal: k = 0 is sample n // 2, and noise has the same sd in both domains.

    Raises:
        BadInputError: data that are not complex (C, X, Y, Z).
        GridMismatchError: data whose shape is not that of the grid.
    """

    data: Tensor
    grid: Grid
    meta: Mapping[str, object]

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or not self.data.is_complex():
            raise BadInputError(f"k-space is complex (C, X, Y, Z), got {self.data.dtype} {tuple(self.data.shape)}")
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise GridMismatchError(
                f"k-space has the matrix {tuple(self.data.shape[1:])} but its grid {self.grid.shape}"
            )
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))


def save_k_space(simulation: Simulation, path: str | Path, *, force: bool = False) -> None:
    """Write the k-space of a simulation as `path` (.npz, compressed) and its sidecar, each whole or not at all.

    The arrays are `k_space` (C, X, Y, Z, in the precision of the scan), `encoded_matrix` (3), `field_of_view_mm` (3)
    and `affine` (4, 4: voxel to R, A, S in mm). The same simulation gives the same bytes.

    Raises:
        BadInputError: a name that does not end in .npz, or files that exist while `force` is off.
    """
    path = Path(path)
    _require_npz(path)
    refuse_existing([path, sidecar_path(path)], force=force)
    grid, data = simulation.scan.grid, k_space(simulation)
    sidecar: dict[str, object] = {
        **simulation.scan.meta,
        "KSpace": {
            "AxisOrder": ["channel", "x", "y", "z"],
            "EncodedMatrix": list(grid.shape),
            "FieldOfViewMm": list(grid.fov_mm),
            "Transform": "centred orthonormal DFT of the image, k = 0 at sample n // 2",
            "NoiseSdPerRealChannel": simulation.acquisition.noise_sd,
        },
    }
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            k_space=data.cpu().numpy(),
            encoded_matrix=np.array(grid.shape),
            field_of_view_mm=np.array(grid.fov_mm),
            affine=grid.affine,
        )
    write_sidecar(path, sidecar, force=force)


def load_k_space(path: str | Path) -> KSpace:
    """Read what `save_k_space` wrote.

    Raises:
        BadInputError: a file that is not there or not of this kind.
    """
    path = Path(path)
    _require_npz(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            data, affine = torch.from_numpy(arrays["k_space"]), arrays["affine"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path} cannot be read as k-space ({error}); it is written by save_k_space") from None
    if data.ndim != 4:
        raise BadInputError(f"the k-space of {path} has the shape {tuple(data.shape)}, expected (C, X, Y, Z)")
    shape = (data.shape[1], data.shape[2], data.shape[3])
    return KSpace(data, Grid(shape, affine), read_sidecar(path))


def _require_npz(path: Path) -> None:
    if path.suffix != _SUFFIX:
        raise BadInputError(f"k-space is kept in {_SUFFIX} files, got the name {path.name}")
