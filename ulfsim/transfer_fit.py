"""Estimate a k-space transfer function from pairs of scans, high field and ultra-low field, of the same heads.

With X and Y the spectra of a pair on one grid, MRIQT (arXiv:2511.13232) takes sum conj(X) Y / (sum |X|^2 + eps) at
each k by itself. Here H, linear between nodes, minimises sum |Y - H X|^2 + smoothness sum |second differences of H|^2:
where a head has no signal, H follows its neighbours instead of falling to 0 or rising to noise. The smoothness is
chosen by leaving each pair out in turn. H is real and even, so a point is blurred but not moved: moving is the business
of the registration. Differences of contrast, which no filter explains, count as noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg
from torch import Tensor

from mrcore.data.grid import Shape3, Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.noise_estimate import background_noise
from mrcore.operators.fourier import FourierOp
from ulfsim.likeness import likeness, require_alike, require_one_grid
from ulfsim.transfer import TransferFunction, hat_matrices, level_of, transfer_operator, world_axes

Array = NDArray[np.float64]

SMOOTHNESS = tuple(10.0**exponent for exponent in range(-5, 3))
"""Weights of the smoothness to choose from, in units of the mean |X|^2 of all pairs."""

NODE_CYC_PER_MM = 0.01
"""Distance of nodes: the estimated point spread may be some 1 / 0.01 = 100 mm wide."""

# With E = M^2 / (2 sd^2), exponential in air: E[sqrt(E - 1); E > 1] over E[sqrt(1 - E); E < 1], for _without_floor.
_BELOW_FLOOR = 0.70580
_OBJECT = 0.2  # share of the level above which a voxel is object, where the noise is Gaussian


@dataclass(frozen=True, eq=False)
class ScanPair:
    """Scans of one head on one grid: `high` field, and `low` field registered to it and resampled.

    Raises:
        GridMismatchError: two grids.
        BadInputError: complex or empty images.
    """

    name: str
    high: Volume
    low: Volume

    def __post_init__(self) -> None:
        require_one_grid(self.name, self.high.grid, self.low.grid)
        for what, volume in (("high", self.high), ("low", self.low)):
            if volume.data.is_complex() or not float(volume.data.sum()) > 0:
                raise BadInputError(f"the {what}-field scan of pair '{self.name}' must be a magnitude image, not empty")

    @property
    def sha256(self) -> tuple[str, str]:
        """SHA-256 of the values (float32) of the high-field and of the low-field scan."""
        return _sha256(self.high), _sha256(self.low)


def fit_transfer(
    pairs: Sequence[ScanPair], *, smoothness: float | None = None, node_cyc_per_mm: float = NODE_CYC_PER_MM
) -> TransferFunction:
    """Estimate the transfer function of `pairs`; `smoothness` is by default the one with the least left-out error.

    The intensities of both scans of a pair may have any scale. Pairs may differ in grid.

    Raises:
        BadInputError: no pair, one pair and no smoothness, the same scan twice, a pair that does not overlap or does
            not correlate (see `ulfsim.likeness`), or a smoothness below 0.
    """
    _require_distinct(pairs)
    for pair in pairs:
        require_alike(pair.name, likeness(pair.high, pair.low))
    nodes = _node_axes(pairs, node_cyc_per_mm)
    sums = [_sums(pair, nodes) for pair in pairs]
    if smoothness is None:
        if len(pairs) < 2:
            raise BadInputError(
                "one pair does not tell the smoothness: none can be left out; give more, or a smoothness"
            )
        smoothness = min(SMOOTHNESS, key=lambda s: float(np.mean(_left_out(sums, s, nodes))))
    errors = tuple(_left_out(sums, smoothness, nodes)) if len(pairs) > 1 else ()
    values = _solve(sums, smoothness, nodes)
    peak = values[0, 0, 0]
    if not peak > 0:
        raise BadInputError("the scans of the pairs do not resemble each other; check that they are of the same heads")
    found = TransferFunction(
        node_cyc_per_mm=nodes.spacing,
        values=torch.from_numpy(values / peak),
        noise_density=torch.zeros(values.shape, dtype=torch.float64),
        smoothness=float(smoothness),
        pairs=tuple(pair.name for pair in pairs),
        sha256=tuple(digest for pair in pairs for digest in pair.sha256),
        errors=errors,
    )
    return replace(found, noise_density=_noise_density(found, pairs, nodes))


def evaluate(transfer: TransferFunction, pairs: Sequence[ScanPair]) -> dict[str, float]:
    """Return the error on each of `pairs`, as in `leave_one_out`; none may have been fitted on.

    Raises:
        BadInputError: a scan of a pair is one that the transfer function was fitted on.
    """
    _require_distinct(pairs)
    for pair in pairs:
        if set(pair.sha256) & set(transfer.sha256):
            raise BadInputError(
                f"a scan of pair '{pair.name}' was used to fit this transfer function, so its error means nothing; "
                "evaluate on other heads, or read the left-out errors in `errors`"
            )
    n_r, n_a, n_s = transfer.values.shape
    nodes = _Nodes(transfer.node_cyc_per_mm, (n_r, n_a, n_s))
    values = transfer.values.numpy()
    return {pair.name: _error(values, _sums(pair, nodes)) for pair in pairs}


@dataclass(frozen=True)
class _Nodes:
    spacing: Triple
    shape: Shape3


@dataclass(frozen=True, eq=False)
class _Sums:
    """Normal equations of one pair: energy of X between nodes, X with Y; energy of Y, mean |X|^2, mass of a node."""

    matrix: sparse.csr_matrix
    right: Array
    energy: float
    power: float
    mass: float


def _require_distinct(pairs: Sequence[ScanPair]) -> None:
    if not pairs:
        raise BadInputError("no pair of scans was given")
    seen: dict[str, str] = {}
    for pair in pairs:
        for digest in set(pair.sha256):
            if digest in seen:
                raise BadInputError(f"pairs '{seen[digest]}' and '{pair.name}' hold the same scan; give each pair once")
            seen[digest] = pair.name


def _node_axes(pairs: Sequence[ScanPair], node_cyc_per_mm: float) -> _Nodes:
    """Return nodes from 0 to the band that all pairs have, about `node_cyc_per_mm` apart."""
    if not node_cyc_per_mm > 0:
        raise BadInputError(f"the distance of nodes must be positive, got {node_cyc_per_mm} cycles/mm")
    spacing = np.array([[pair.high.grid.spacing_mm[a] for a in world_axes(pair.high.grid)] for pair in pairs])
    band = 0.5 / spacing.max(0)
    n = [max(2, round(edge / node_cyc_per_mm) + 1) for edge in band]
    distance = [float(edge / (count - 1)) for edge, count in zip(band, n, strict=True)]
    return _Nodes((distance[0], distance[1], distance[2]), (n[0], n[1], n[2]))


def _spectra(pair: ScanPair) -> tuple[Array, Array]:
    """Return the spectra of high and low along R, A, S; levels are those of `high`, the scale of `low` is matched."""
    order = world_axes(pair.high.grid)
    high = pair.high.data.double()
    low = _without_floor(pair.low.data.double())
    fourier = FourierOp(pair.high.grid.shape, torch.complex128)
    x, y = (fourier(v.to(torch.complex128)).permute(order).numpy() for v in (high / level_of(high), low))
    scale = float((x.conj() * y).real.sum() / np.square(np.abs(x)).sum())
    if not scale > 0:
        raise BadInputError(f"the scans of pair '{pair.name}' do not resemble each other; were they registered?")
    return x, y / scale


def _without_floor(low: Tensor) -> Tensor:
    """Remove the floor of Rician magnitudes where there is air to measure it: sqrt(M^2 - 2 sd^2) with its sign.

    Negative values are scaled so that air, which is most of a scan, has mean 0.
    """
    air = background_noise(low)
    if air is None:
        return low
    squared = low.square() - 2 * air.sd**2
    return torch.where(squared > 0, 1.0, -_BELOW_FLOOR) * squared.abs().sqrt()


def _sums(pair: ScanPair, nodes: _Nodes) -> _Sums:
    x, y = _spectra(pair)
    grid = pair.high.grid
    full = hat_matrices(grid, nodes.spacing, nodes.shape)
    hats = [_half(hat) for hat in full]
    voxel = float(np.prod(grid.spacing_mm))  # energies on grids of any spacing then add up
    band = np.einsum("i,j,k->ijk", *[hat.sum(1) for hat in full])
    inside = _folded(band)
    power = _folded(np.square(np.abs(x)))
    return _Sums(
        matrix=_gram(voxel * power, hats),
        right=_contracted(voxel * _folded((x.conj() * y).real), hats).ravel(),
        energy=voxel * float((np.square(np.abs(y)) * band).sum()),
        power=float((power * (inside > 0)).sum() / inside.sum()),
        mass=voxel * float(inside.sum()) / float(np.prod(nodes.shape)),
    )


def _folded(values: Array) -> Array:
    """Return sums over both signs of k on each axis; |k| runs from 0."""
    for axis, n in enumerate(values.shape):
        at = np.moveaxis(values, axis, 0)
        out = np.zeros((n // 2 + 1, *at.shape[1:]))
        out[: n - n // 2] += at[n // 2 :]
        out[1 : n // 2 + 1] += at[: n // 2][::-1]
        values = np.moveaxis(out, 0, axis)
    return values


def _half(hat: Array) -> Array:
    """Return the rows of |k| from 0 of a matrix over all k."""
    return hat[: hat.shape[0] // 2 + 1][::-1]


def _contracted(values: Array, hats: list[Array]) -> Array:
    """Return sum over k (i, j, k) of values times one hat per axis."""
    for hat in hats:
        # The first axis goes to the end each time: three times, and the order is as before.
        values = np.tensordot(values, hat, axes=(0, 0))
    return values


def _gram(weight: Array, hats: list[Array]) -> sparse.csr_matrix:
    """Return the matrix (nodes, nodes) of sum over k of weight phi_n phi_m: 27 diagonals, as hats overlap so far."""
    shape = tuple(hat.shape[1] for hat in hats)
    n = int(np.prod(shape))
    index = np.arange(n).reshape(shape)
    strides = (shape[1] * shape[2], shape[2], 1)
    rows, columns, entries = [], [], []
    for offset in np.ndindex(3, 3, 3):
        shift = [o - 1 for o in offset]
        products = [hat * _shifted(hat, s) for hat, s in zip(hats, shift, strict=True)]
        found = _contracted(weight, products).ravel()
        used = np.flatnonzero(found)
        rows.append(index.ravel()[used])
        columns.append(rows[-1] + sum(s * stride for s, stride in zip(shift, strides, strict=True)))
        entries.append(found[used])
    where = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix((np.concatenate(entries), where), shape=(n, n))


def _shifted(hat: Array, by: int) -> Array:
    """Return column n + by in place of column n, 0 where there is none."""
    out = np.zeros_like(hat)
    n = hat.shape[1]
    low, high = max(0, -by), min(n, n - by)
    out[:, low:high] = hat[:, low + by : high + by]
    return out


def _solve(sums: Sequence[_Sums], smoothness: float, nodes: _Nodes, tolerance: float = 1e-6) -> Array:
    """Return H at the nodes (R, A, S)."""
    if not 0 <= smoothness < np.inf:
        raise BadInputError(f"a smoothness must be finite and not negative, got {smoothness}")
    scale = float(np.mean([s.power for s in sums]) * sum(s.mass for s in sums))
    matrix = sum((s.matrix for s in sums[1:]), sums[0].matrix) + smoothness * scale * _roughness(nodes.shape)
    # What no data and no neighbour determine is 0.
    matrix = matrix + 1e-14 * scale * sparse.identity(matrix.shape[0], format="csr")
    right = sum((s.right for s in sums[1:]), sums[0].right)
    # Scaled to a diagonal of 1: the tolerance then holds for weak k as for strong.
    root = np.sqrt(matrix.diagonal())
    scaled = sparse.diags(1 / root) @ matrix @ sparse.diags(1 / root)
    found, failed = cg(scaled, right / root, rtol=tolerance, maxiter=10_000)
    if failed:
        raise BadInputError("the transfer function is not determined by these pairs; use a larger smoothness")
    out: Array = (np.asarray(found) / root).reshape(nodes.shape)
    return out


def _roughness(shape: Shape3) -> sparse.csr_matrix:
    """Return the matrix of sum of squared second differences along each axis; H is even at k = 0."""
    total = sparse.csr_matrix((int(np.prod(shape)),) * 2)
    for axis in range(3):
        factors = [sparse.identity(n, format="csr") for n in shape]
        n = shape[axis]
        second = np.zeros((n - 1, n))
        for i in range(n - 1):
            second[i, i] -= 2
            second[i, abs(i - 1)] += 1
            second[i, i + 1] += 1
        factors[axis] = sparse.csr_matrix(second.T @ second)
        total = total + sparse.kron(sparse.kron(factors[0], factors[1]), factors[2], format="csr")
    return total


def _left_out(sums: Sequence[_Sums], smoothness: float, nodes: _Nodes) -> list[float]:
    return [_error(_solve([*sums[:i], *sums[i + 1 :]], smoothness, nodes, 1e-4), sums[i]) for i in range(len(sums))]


def _error(values: Array, sums: _Sums) -> float:
    """Return sum |Y - s H X|^2 / sum |Y|^2 over the band, with the s that makes it least."""
    flat = values.ravel()
    both, own = float(flat @ sums.right), float(flat @ (sums.matrix @ flat))
    return 1 - both**2 / (own * sums.energy) if own > 0 else 1.0


def _noise_density(transfer: TransferFunction, pairs: Sequence[ScanPair], nodes: _Nodes) -> Tensor:
    """Return the power of the residual inside the objects at the nodes (R, A, S), mm^3 per unit of level."""
    power, mass = np.zeros(nodes.shape), np.zeros(nodes.shape)
    for pair in pairs:
        grid = pair.high.grid
        fourier = FourierOp(grid.shape, torch.complex128)
        high = pair.high.data.double() / level_of(pair.high.data)
        fitted = transfer_operator(transfer, grid, torch.float64)(high.to(torch.complex128)).real
        low = _without_floor(pair.low.data.double())
        inside = fitted > _OBJECT * level_of(fitted)
        scale = float((fitted * low).sum() / fitted.square().sum())
        residual = torch.where(inside, low / scale - fitted, 0.0)
        spectrum = fourier(residual.to(torch.complex128)).abs().square() / inside.double().mean()
        hats = hat_matrices(grid, nodes.spacing, nodes.shape)
        volume = float(np.prod(grid.spacing_mm))
        power += volume * _contracted(spectrum.permute(world_axes(grid)).numpy(), hats)
        mass += np.einsum("i,j,k->ijk", *[hat.sum(0) for hat in hats])
    return torch.from_numpy(power / np.maximum(mass, 1e-12))


def _sha256(volume: Volume) -> str:
    values = volume.data.detach().cpu().to(torch.float32).contiguous().numpy()
    return hashlib.sha256(values.tobytes()).hexdigest()
