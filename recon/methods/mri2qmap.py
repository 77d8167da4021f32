"""MRI2Qmap: maps whose weighted images look like those that a denoiser of ordinary MRI was trained on.

After Golbabaee et al. 2026 (arXiv 2603.11316), formulated anew. Per voxel q = (T1, T2 [, B1]) and complex PD rho, with
B(q) the coefficients, w(q) weighted signals with the sign of their inversions and g a gain for each contrast:

    min 1/2 |W^(1/2) (y - A x)|^2 + lambda phi(v, s)   subject to   x = v = rho B(q),   s_m = g_m |rho| w_m(q)

by the alternating directions method of multipliers, whose steps are

    data    x <- argmin 1/2 |W^(1/2) (y - A x)|^2 + gamma/2 |x - (z - u)|^2
    prior   v <- D_sigma(x + u);   s <- D_(k sigma)(h - t)
    match   (q, rho) <- argmin |v - rho B(q)|^2 + la |s + t - g |rho| w(q)|^2;   z <- rho B(q);   h <- g |rho| w(q)
    duals   u <- u + x - z;   t <- t + s - h

The match is between the atoms of the grid, so that the duals do not gather what a grid leaves over: of a fully sampled
object without noise, on a grid of 6 %, T1 came within 0.13 % and T2 within 0.82 % on average. The problem is not convex
and the denoiser is no proximal map: convergence is not guaranteed, sigma falls instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.denoisers.unet import Denoise, geometric
from mrcore.errors import BadInputError
from mrcore.solvers import Solution, Watch, conjugate_gradient, unwatched
from recon.contrasts import DEFAULT_CONTRASTS, Contrast, weighted_signals
from recon.dictionary.dictionary import Dictionary
from recon.dictionary.match_index import MatchIndex, match_index
from recon.dictionary.matching import Match, match
from recon.dictionary.refine import Parameters, on_grid, refine
from recon.encoding.encoding import Encoding
from recon.methods.baselines import coefficient_scale, mean_eigenvalue, percentile_99, subspace_cg
from recon.methods.maps import Maps, filled, support
from recon.methods.pnp import denoised_coefficients, denoised_lifted


@dataclass(frozen=True)
class Mri2QmapSettings:
    """How MRI2Qmap runs; no number has a unit of the data, so that one set serves every scanner.

    The defaults were chosen by the errors of T1 and T2 in white and grey matter of three people, eightfold accelerated
    spirals at an SNR of 20: one of another site, and two whose maps the net was trained on as well. Relative to plug
    and play these errors were 0.998 with images denoised as strongly as coefficients, 0.973 with twice the sigma, 0.957
    with three times, 0.951 with 9 steps in place of 6; worse: four times, an image_weight of 0.1, a coupling of 1.5.

    Attributes:
        contrasts: what the denoiser sees beside the coefficients.
        n_iter: most steps of the outer iteration.
        sigma_first: noise that the denoiser removes from coefficients in the first step, relative to the noise found at
            the start: what the coefficients of least squares have beside their atom, per real channel.
        sigma_last: the same in the last step; between them sigma falls geometrically.
        image_sigma: what it removes from images, relative to that.
        coupling: gamma relative to the mean eigenvalue of A^H W A.
        image_weight: la, for images whose 99th percentile is that of the norm of the coefficients.
        n_cg: most iterations of conjugate gradients in a data step.
        n_start: iterations of conjugate gradients for the start.
        tolerance: the iteration stops where both constraints hold to this share and the maps moved by less.

    Raises:
        BadInputError: no contrasts or iterations, numbers that are not positive, noise that rises.
    """

    contrasts: tuple[Contrast, ...] = DEFAULT_CONTRASTS
    n_iter: int = 9
    sigma_first: float = 0.8
    sigma_last: float = 0.4
    image_sigma: float = 3.0
    coupling: float = 2.0
    image_weight: float = 0.05
    n_cg: int = 4
    n_start: int = 10
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if not self.contrasts or min(self.n_iter, self.n_cg, self.n_start) < 1:
            raise BadInputError(f"MRI2Qmap needs a contrast and at least one iteration of each kind, got {self}")
        if not 0 < self.sigma_last <= self.sigma_first < math.inf:
            raise BadInputError(f"the noise to remove must fall and stay above 0, got {self}")
        if not min(self.coupling, self.image_weight, self.image_sigma) > 0:
            raise BadInputError(f"coupling, image_weight and image_sigma must be above 0, got {self}")


@dataclass(frozen=True)
class Step:
    """What a step did, all relative: the `sigma` removed, how far the constraints are from holding, `moved`, `misfit`.

    `coefficients_apart` is |x - z| / |x|, `images_apart` |s - h| / |s| (primal residuals), `moved` the change of z over
    |z| (dual residual) and `misfit` |W^(1/2) (y - A z)| / |W^(1/2) y|, the data consistency of the maps.
    """

    sigma: float
    coefficients_apart: float
    images_apart: float
    moved: float
    misfit: float


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Result: `maps`, between the atoms of the grid, and the coefficients x as a `Solution`, both of the last step.

    The step of least misfit is not the best: it is the one that was denoised least.
    """

    maps: Maps
    solution: Solution
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class _Problem:
    """What stays: data, penalty, dictionary, the contrasts with their gains.

    Atoms of the `longer` dictionary end in their weighted signals, times gain and the root of the images' weight;
    `turn` takes the phase of the start off the coefficients.
    """

    encoding: Encoding
    rhs: Tensor
    energy: float
    gamma: float
    longer: Dictionary
    index: MatchIndex
    contrasts: tuple[Contrast, ...]
    gains: Tensor
    turn: Tensor
    mask: Tensor
    scale: float
    image_sigma: float
    n_cg: int


@dataclass(frozen=True, eq=False)
class _State:
    """What changes: coefficients x, those z and images h of the maps, duals u and t; the match and the maps' values."""

    x: Tensor
    z: Tensor
    h: Tensor
    u: Tensor
    t: Tensor
    found: Match
    parameters: Parameters


def mri2qmap(
    encoding: Encoding,
    samples: Tensor,
    dictionary: Dictionary,
    denoise: Denoise,
    settings: Mri2QmapSettings | None = None,
    mask: Tensor | None = None,
    watch: Watch = unwatched,
) -> Reconstruction:
    """Return maps and coefficients from samples (C, N); see the head of this module.

    `denoise` works on images (X, Y, Z) of any unit, from 0 on: parts of coefficients and images with inversions are
    lifted so. Outside `mask` (X, Y, Z), by default the `support` of the start, coefficients have no atom.

    Raises:
        BadInputError: a dictionary without a subspace or of fewer than three coefficients, data that do not fit.
    """
    settings = settings or Mri2QmapSettings()
    if dictionary.subspace is None or dictionary.atoms.shape[1] < 3:
        raise BadInputError("MRI2Qmap needs a dictionary in a subspace of three coefficients or more")
    start = subspace_cg(encoding, samples, settings.n_start).x
    problem, state, noise = _started(encoding, samples, dictionary, settings, start, mask)
    steps, done = list[Step](), False
    for sigma in geometric(settings.sigma_first, settings.sigma_last, settings.n_iter):
        state, step = _stepped(problem, state, _mirrored(denoise, len(steps)), sigma * noise)
        steps.append(step)
        watch()
        done = max(step.coefficients_apart, step.images_apart, step.moved) < settings.tolerance
        if done:
            break
    message = f"{'converged' if done else 'stopped'} after {len(steps)} steps"
    solution = Solution(state.x, done, len(steps), tuple(step.misfit for step in steps), message)
    has_b1 = dictionary.grid.lattice.shape[2] > 1
    maps = filled(problem.mask, state.found, state.parameters, has_b1=has_b1)
    return Reconstruction(maps, solution, tuple(steps))


def model_noise(index: MatchIndex, coefficients: Tensor) -> float:
    """Return the sd per real channel of what coefficients (voxels, K) of least squares have beside their best atom.

    Noise and aliasing together: 2 K real numbers less the four that T1, T2 and PD take up.
    """
    found = match(index, coefficients)
    left = coefficients.abs().square().sum(1) * (1 - found.fit.square()).clamp_min(0)
    return math.sqrt(float(left.mean()) / (2 * coefficients.shape[1] - 4))


def _started(
    encoding: Encoding,
    samples: Tensor,
    dictionary: Dictionary,
    settings: Mri2QmapSettings,
    start: Tensor,
    mask: Tensor | None,
) -> tuple[_Problem, _State, float]:
    """Return problem, first state and the noise of the start."""
    mask = support(start) if mask is None else mask
    data, scale = start[:, mask].T, coefficient_scale(start)
    grid, atoms = dictionary.grid, dictionary.atoms
    plain = match_index(atoms)
    found = match(plain, data)
    weighted = weighted_signals(settings.contrasts, grid.t1_s, grid.t2_s)
    images = found.pd.abs()[:, None] * weighted[found.atom]
    # one scale for all contrasts, so that one sigma and one weight serve them
    gains = torch.tensor([scale / max(percentile_99(image.abs()), 1e-6 * scale) for image in images.T]).to(weighted)
    weighted = weighted * gains
    root = math.sqrt(settings.image_weight)
    problem = _Problem(
        encoding,
        encoding.right_hand_side(samples),
        float((encoding.weights * samples.abs().square()).sum()),
        settings.coupling * mean_eigenvalue(encoding),
        Dictionary(grid, torch.cat([atoms, root * weighted.to(atoms.dtype)], 1)),
        match_index(atoms, weighted, settings.image_weight),
        settings.contrasts,
        gains,
        torch.polar(torch.ones_like(start[0].real), -start[0].angle()),
        mask,
        scale,
        settings.image_sigma,
        settings.n_cg,
    )
    h = _images(images * gains, mask)
    state = _State(start, start, h, torch.zeros_like(start), torch.zeros_like(h), found, on_grid(dictionary, found))
    return problem, state, model_noise(plain, data)


def _stepped(problem: _Problem, state: _State, denoise: Denoise, sigma: float) -> tuple[_State, Step]:
    """Return the state after one step of the outer iteration and what the step did."""
    p, mask = problem, problem.mask
    target = p.rhs + p.gamma * (state.z - state.u)
    normal = p.encoding.normal
    x = conjugate_gradient(lambda v: normal(v) + p.gamma * v, target, state.x, p.n_cg, tolerance=1e-4).x
    free = x + state.u
    z = denoised_coefficients(free * p.turn, denoise, sigma) * p.turn.conj()  # outside the mask it stays like this
    s = torch.stack([denoised_lifted(image, denoise, p.image_sigma * sigma) for image in state.h - state.t])
    found, parameters = _matched(p, z[:, mask].T, (s + state.t)[:, mask].T)
    z[:, mask] = parameters.signal[:, : len(z)].T
    signals = weighted_signals(p.contrasts, parameters.t1_s, parameters.t2_s)
    h = _images(parameters.pd.abs()[:, None] * signals * p.gains, mask)
    after = _State(x, z, h, free - z, s + state.t - h, found, parameters)
    fitted = float(torch.vdot(z.reshape(-1), (normal(z) - 2 * p.rhs).reshape(-1)).real)
    misfit = math.sqrt(max(fitted + p.energy, 0.0) / p.energy) if p.energy > 0 else 0.0
    step = Step(sigma / p.scale, _apart(x, z), _apart(s, h), _apart(z, state.z), misfit)
    return after, step


def _matched(problem: _Problem, data: Tensor, images: Tensor) -> tuple[Match, Parameters]:
    """Return the joint match of coefficients and images (voxels, each), and what lies between the atoms.

    Images times the phase of PD make longer coefficients of the same problem: min |v - rho B|^2 + la |s - |rho| w|^2.
    """
    found = match(problem.index, data, images)
    phase = torch.polar(torch.ones_like(found.fit), found.pd.angle())
    longer = torch.cat([data, math.sqrt(problem.index.weight) * images * phase[:, None]], 1)
    return found, refine(problem.longer, found, longer)


def _mirrored(denoise: Denoise, number: int) -> Denoise:
    """Return the denoiser of a mirror image: nets are not quite symmetric, and steps average over what they prefer."""
    axes = [axis for axis in range(3) if number >> axis & 1]
    return lambda image, sigma: denoise(image.flip(axes), sigma).flip(axes)


def _images(values: Tensor, mask: Tensor) -> Tensor:
    """Return values (voxels, images) as images (M, X, Y, Z), 0 outside the mask."""
    out = values.new_zeros((values.shape[1], *mask.shape))
    out[:, mask] = values.T
    return out


def _apart(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(a).clamp_min(1e-30))
