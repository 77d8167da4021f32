"""A k-space transfer function: what a low-field scanner does to a high-field scan, as one filter and its noise.

`ulfsim.transfer_fit` estimates it from pairs of scans; here it is applied, saved and loaded. H is real, even and
linear between nodes over |k| along the world axes, so it fits grids of any size, spacing and axis order. One linear
filter cannot change the contrast between tissues; `ulfsim.simulation` can.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.acquisition import AxisPsf
from mrcore.data.brief import Brief
from mrcore.data.grid import Grid, Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.io.atomic import atomic_write
from mrcore.io.file_content import refuse_unfetched
from mrcore.operators.fourier import FourierOp
from mrcore.operators.linop import CPU, LinearOp
from mrcore.operators.pointwise import DiagonalOp
from mrcore.operators.separable import SeparableOp
from mrcore.random import seeded

Array = NDArray[np.float64]
_FORMAT = "mrkit transfer function 1"


@dataclass(frozen=True, eq=False, repr=False)
class TransferFunction(Brief):
    """What a low-field scanner does to the k-space of a high-field scan, and the noise that it adds.

    Attributes:
        node_cyc_per_mm: distance of nodes along world R, A and S; the first is k = 0.
        values: H at the nodes (R, A, S) of |k|, float64; H(0) = 1. Beyond the last node H is 0.
        noise_density: power of the noise at the nodes per real channel, in mm^3, where the level of the object is 1.
        smoothness: weight of the smoothness of H, in units of the mean |X|^2.
        pairs: names of the pairs it was fitted on.
        sha256: of the values of all their scans.
        errors: error on each pair when the others were fitted; empty for a single pair.

    The level of an image is sum v^2 / sum v, its mean weighted with itself.
    """

    node_cyc_per_mm: Triple
    values: Tensor
    noise_density: Tensor
    smoothness: float
    pairs: tuple[str, ...]
    sha256: tuple[str, ...]
    errors: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.shape != self.noise_density.shape or min(self.values.shape) < 2:
            raise BadInputError(
                f"H and noise need the same nodes, two or more on each of three axes, got "
                f"{tuple(self.values.shape)} and {tuple(self.noise_density.shape)}"
            )
        if not all(0 < node < np.inf for node in self.node_cyc_per_mm):
            raise BadInputError(f"the distance of nodes must be positive, got {self.node_cyc_per_mm} cycles/mm")
        if not bool(torch.isfinite(self.values).all()) or not bool((self.noise_density >= 0).all()):
            raise BadInputError("H must be finite and the noise density not negative; fit the transfer function again")


def transfer_operator(
    transfer: TransferFunction,
    grid: Grid,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = CPU,
) -> LinearOp:
    """Return H as an operator on complex images on `grid`, whatever its size, spacing and axis order: F^H H F."""
    fourier = FourierOp(grid.shape, dtype.to_complex(), device)
    weight = _on_grid(transfer.values, transfer, grid).to(device, dtype.to_real())
    return fourier.H @ DiagonalOp(weight) @ fourier


def degrade(volume: Volume, transfer: TransferFunction, seed: int, scan_grid: Grid | None = None) -> Volume:
    """Make a low-field magnitude scan of `volume`: filter, add complex noise of the fitted spectrum, sample.

    Everything happens on the grid of `volume`; with `scan_grid` the noisy complex image is then sampled there,
    limited to its band. The same arguments give the same bytes.

    Raises:
        BadInputError: a complex volume, or a scan grid outside it.
    """
    if volume.data.is_complex():
        raise BadInputError("a degradation starts from a magnitude image; take the magnitude of this volume first")
    grid, real = volume.grid, volume.data.dtype
    fourier = FourierOp(grid.shape, real.to_complex(), volume.data.device)
    density = _on_grid(transfer.noise_density, transfer, grid)
    sd = level_of(volume.data) * (density / float(np.prod(grid.spacing_mm))).sqrt()
    draw = torch.randn((2, *grid.shape), generator=seeded(seed, "ulfsim.transfer:noise"), dtype=real)
    noise = torch.complex(draw[0], draw[1]) * sd.to(real)
    clean = transfer_operator(transfer, grid, real, volume.data.device)(volume.data.to(real.to_complex()))
    noisy = clean + fourier.H(noise.to(volume.data.device))
    if scan_grid is not None:
        sampling = imaging_operator(grid, scan_grid, (AxisPsf(),) * 3, real, volume.data.device)
        noisy = torch.complex(sampling(noisy.real.contiguous()), sampling(noisy.imag.contiguous()))
    made = {"TransferFunction": {"Pairs": list(transfer.pairs), "Smoothness": transfer.smoothness}, "Seed": seed}
    source = {key: volume.meta[key] for key in ("SourceFile", "SourceSHA256", "SpaceCode") if key in volume.meta}
    return Volume(noisy.abs(), scan_grid or grid, {**source, **made})


def level_of(image: Tensor) -> float:
    """Return the level of an image, sum v^2 / sum v: that of the object, whatever air lies around it."""
    values = image.double().clamp_min(0)
    total = float(values.sum())
    return float(values.square().sum()) / total if total > 0 else 0.0


def save_transfer(transfer: TransferFunction, path: str | Path, *, force: bool = False) -> None:
    """Write a transfer function as .npz, atomically; the same one gives the same bytes.

    Raises:
        BadInputError: another suffix, or a file that exists while `force` is off.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise BadInputError(f"a transfer function is saved as .npz, got '{path.name}'")
    facts = {
        "Format": _FORMAT,
        "NodeCycPerMm": list(transfer.node_cyc_per_mm),
        "Smoothness": transfer.smoothness,
        "Pairs": list(transfer.pairs),
        "SHA256": list(transfer.sha256),
        "LeftOutErrors": list(transfer.errors),
    }
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            facts=np.array(json.dumps(facts, sort_keys=True)),
            values=transfer.values.numpy(),
            noise_density=transfer.noise_density.numpy(),
        )


def load_transfer(path: str | Path) -> TransferFunction:
    """Read what `save_transfer` wrote, exactly.

    Raises:
        BadInputError: no such file, or one that holds something else.
    """
    path = Path(path)
    refuse_unfetched(path)
    if not path.is_file():
        raise BadInputError(f"no file {path}; make a transfer function with `mrkit transfer fit`")
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            values, density = (torch.from_numpy(file[name].astype(np.float64)) for name in ("values", "noise_density"))
        if facts["Format"] != _FORMAT:
            raise BadInputError(f"{path} is of format '{facts['Format']}', this version reads '{_FORMAT}'")
        a, b, c = (float(v) for v in facts["NodeCycPerMm"])
        names, digests = (tuple(str(v) for v in facts[key]) for key in ("Pairs", "SHA256"))
        errors = tuple(float(v) for v in facts["LeftOutErrors"])
        return TransferFunction((a, b, c), values, density, float(facts["Smoothness"]), names, digests, errors)
    except BadInputError:
        raise
    except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
        raise BadInputError(f"{path} is no transfer function that mrkit can read: {error}") from None


def world_axes(grid: Grid) -> tuple[int, int, int]:
    """Return the voxel axes nearest to world R, A and S."""
    nearest = [int(axis) for axis in nib.orientations.io_orientation(grid.affine)[:, 0]]
    return nearest.index(0), nearest.index(1), nearest.index(2)


def hat_matrices(grid: Grid, node_cyc_per_mm: Triple, n_nodes: tuple[int, ...]) -> list[Array]:
    """Return per world axis (R, A, S) the matrix (k, nodes) of linear interpolation at |k|; 0 beyond the last node."""
    out = []
    for axis, distance, n in zip(world_axes(grid), node_cyc_per_mm, n_nodes, strict=True):
        at = np.abs(np.fft.fftshift(np.fft.fftfreq(grid.shape[axis], grid.spacing_mm[axis]))) / distance
        hat = np.clip(1 - np.abs(np.minimum(at, n - 1)[:, None] - np.arange(n)), 0, None)
        # Headers hold voxel sizes in float32, so the edge of the band is known to 1e-6.
        out.append(hat * (at <= (n - 1) * (1 + 1e-6))[:, None])
    return out


def _on_grid(values: Tensor, transfer: TransferFunction, grid: Grid) -> Tensor:
    """Return a function of |k| at the nodes (R, A, S) at the frequencies of `grid` (X, Y, Z), float64."""
    a, b, c = map(torch.from_numpy, hat_matrices(grid, transfer.node_cyc_per_mm, tuple(values.shape)))
    order = world_axes(grid)
    world: Tensor = SeparableOp((a, b, c))(values)
    return world.permute(order.index(0), order.index(1), order.index(2)).contiguous()
