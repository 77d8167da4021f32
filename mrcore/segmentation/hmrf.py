"""Hidden Markov random field EM for tissue classes: the numbers behind `mrcore.segmentation.tissues`.

Model, per voxel i with class k: y_i = b_i (mu_k + sd_k e_i), e white normal; log b a polynomial in space; labels a
Potts field in mean-field form (Zhang, Brady & Smith, IEEE TMI 2001;20:45; Van Leemput et al., IEEE TMI 1999;18:897
for the bias; 2001;20:677 for the outlier weights). Partial volumes follow from the fitted classes: a voxel is one
class or a mixture of two, its mean between theirs (Shattuck et al., NeuroImage 2001;13:856).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product
from typing import Protocol

import torch
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.errors import BadInputError

_SLAB_VOXELS = 250_000
OUTLIER_SD = 3.0
"""Distance from a class, in its sd, where a voxel counts half."""
SMALLEST_GAP = 0.25
"""Distance of neighbouring class means over the sum of their sd, below which they are one class."""


class ModelSettings(Protocol):
    """What the fit reads of the settings (see `mrcore.segmentation.tissues.HmrfSettings`)."""

    @property
    def beta(self) -> float: ...
    @property
    def bias_order(self) -> int: ...
    @property
    def believed(self) -> tuple[float, float]: ...
    @property
    def bias_stiffness(self) -> float: ...
    @property
    def weights(self) -> tuple[float, ...]: ...
    @property
    def weight_smoothing(self) -> float: ...
    @property
    def sd_pooling(self) -> float: ...
    @property
    def max_iter(self) -> int: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def mixture_weight(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Classes:
    """Gaussian classes from dark to bright: `mean`, `sd`, `weight`, each (K,), of the image without its bias."""

    mean: Tensor
    sd: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class HmrfFit:
    """Result of a fit: `fraction` (K, X, Y, Z), `classes`, `bias` (X, Y, Z; geometric mean 1 in the mask), history."""

    fraction: Tensor
    classes: Classes
    bias: Tensor
    converged: bool
    n_iter: int
    history: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Sample:
    """Every n-th voxel of the mask on each axis: values `y` (N,), polynomial `basis` (N, C), where they lie."""

    y: Tensor
    basis: Tensor
    index: tuple[Tensor, Tensor, Tensor]


def fit(
    y: Tensor, mask: Tensor, spacing_mm: Triple, settings: ModelSettings, log_prior: Tensor | None = None
) -> HmrfFit:
    """Fit classes, bias and labels to `y` (X, Y, Z), positive, of order one, inside `mask`.

    First without the field on a sample of about 2 mm (classes and bias), then with it on all voxels. `log_prior`
    (K, X, Y, Z), classes from dark to bright, adds to the score of each class in each voxel.
    """
    middle = _median(y[mask])
    usable = mask & (y >= settings.believed[0] * middle) & (y <= settings.believed[1] * middle)
    sample = _sample(y, usable, spacing_mm, settings.bias_order)
    place = None if log_prior is None else log_prior[(slice(None), *sample.index)]
    classes = initial_classes(sample.y, settings) if place is None else expected_classes(sample.y, place, settings)
    coefficients = torch.zeros(sample.basis.shape[1], dtype=y.dtype)
    history: list[float] = []
    for _ in range(settings.max_iter):
        flat = sample.y / (sample.basis @ coefficients).exp()
        posterior, log_density = posterior_of(flat, classes, place)
        history.append(float(log_density.mean()))
        updated = update_classes(flat, posterior, classes, settings)
        coefficients = update_bias(sample, posterior, updated, coefficients, settings.bias_stiffness)
        change = _change(classes, updated)
        classes = updated
        if change < settings.tolerance:
            break
    return _fit_field(y, mask, usable, spacing_mm, settings, sample, classes, coefficients, history, log_prior)


def _fit_field(
    y: Tensor,
    mask: Tensor,
    usable: Tensor,
    spacing_mm: Triple,
    settings: ModelSettings,
    sample: _Sample,
    classes: Classes,
    coefficients: Tensor,
    history: list[float],
    log_prior: Tensor | None,
) -> HmrfFit:
    place = None if log_prior is None else log_prior[:, usable]
    prob = torch.zeros((len(classes.mean), *y.shape), dtype=y.dtype)
    converged = False
    for step in range(settings.max_iter):
        flat = (y / bias_field(coefficients, y.shape, settings.bias_order))[usable]
        energy = None if step == 0 else settings.beta * neighbour_sum(prob, spacing_mm)[:, usable]
        energy = place if energy is None else energy if place is None else energy + place
        posterior, log_density = posterior_of(flat, classes, energy)
        prob[:, usable] = posterior
        history.append(float(log_density.mean()))
        updated = update_classes(flat, posterior, classes, settings)
        at_sample = prob[(slice(None), *sample.index)]
        coefficients = update_bias(sample, at_sample, updated, coefficients, settings.bias_stiffness)
        change = _change(classes, updated)
        classes = updated
        if step > 1 and change < settings.tolerance:
            converged = True
            break
    _require_apart(classes)
    bias = bias_field(coefficients, y.shape, settings.bias_order)
    fraction = partial_volumes((y / bias)[mask], mask, prob, classes, spacing_mm, settings, log_prior)
    return HmrfFit(fraction, classes, bias, converged, len(history), tuple(history))


def posterior_of(flat: Tensor, classes: Classes, energy: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return class probabilities (K, N) of bias-free values (N,) and their log density (N,)."""
    score = classes.weight.log()[:, None] + _log_normal(flat, classes)
    if energy is not None:
        score = score + energy
    total = torch.logsumexp(score, 0)
    return (score - total).exp(), total


def update_classes(flat: Tensor, posterior: Tensor, classes: Classes, settings: ModelSettings) -> Classes:
    """Return the classes that fit `posterior` best, voxels far from their class counting less.

    Raises:
        BadInputError: a class has lost nearly all its voxels.
    """
    weight = posterior * inlier_weight(flat, classes)
    total = weight.sum(1)
    share = posterior.mean(1)
    if float(share.min()) < 1e-3 or float(total.min()) < 8:
        raise BadInputError(
            f"a tissue class became empty (shares {[round(float(s), 4) for s in share]}): the image does not show "
            "three tissues inside this mask; check mask and contrast, or give tissue maps"
        )
    mean = (weight @ flat) / total
    variance = (weight * (flat - mean[:, None]) ** 2).sum(1) / total
    # Voxels of two tissues widen the class between them, which then takes more of them; noise is common to all classes.
    common = (total @ variance) / total.sum()
    pooling = settings.sd_pooling
    sd = (pooling * common + (1 - pooling) * variance).sqrt().clamp_min(1e-3)
    prior = torch.tensor(settings.weights, dtype=flat.dtype)
    smoothing = settings.weight_smoothing
    new_weight = (share + smoothing * prior) / (1 + smoothing)
    order = torch.argsort(mean)
    return Classes(mean[order], sd[order], new_weight)


def _require_apart(classes: Classes) -> None:
    gap = classes.mean.diff() / (classes.sd[1:] + classes.sd[:-1])
    if float(gap.min()) < SMALLEST_GAP:
        raise BadInputError(
            f"two tissue classes coincide (means {[round(float(m), 3) for m in classes.mean]} of the mean): the "
            "image does not show three tissues inside this mask; check mask and contrast, or give tissue maps"
        )


def inlier_weight(flat: Tensor, classes: Classes) -> Tensor:
    """Return (K, N): N(y) / (N(y) + N(OUTLIER_SD)), 1 inside a class and 0 far away (Van Leemput 2001, eq. 9)."""
    z = (flat[None] - classes.mean[:, None]) / classes.sd[:, None]
    return torch.sigmoid(0.5 * (OUTLIER_SD**2 - z**2))


def neighbour_sum(prob: Tensor, spacing_mm: Triple) -> Tensor:
    """Sum (K, X, Y, Z) over the six face neighbours, each weighted by smallest spacing / its distance."""
    out = torch.zeros_like(prob)
    for axis, spacing in enumerate(spacing_mm, start=1):
        weight = min(spacing_mm) / spacing
        n = prob.shape[axis]
        out.narrow(axis, 1, n - 1).add_(prob.narrow(axis, 0, n - 1), alpha=weight)
        out.narrow(axis, 0, n - 1).add_(prob.narrow(axis, 1, n - 1), alpha=weight)
    return out


def partial_volumes(
    flat: Tensor,
    mask: Tensor,
    prob: Tensor,
    classes: Classes,
    spacing_mm: Triple,
    settings: ModelSettings,
    log_prior: Tensor | None = None,
) -> Tensor:
    """Return expected tissue fractions (K, X, Y, Z) of bias-free values `flat` (N,) in `mask`.

    States are the pure classes and mixtures of two at fractions .1 to .9; the prior of a state follows the fractions of
    its neighbours, so a mixture of dark and bright beside both is told from the class between.
    """
    states, weight = _states(classes, settings.mixture_weight)
    mean = states @ classes.mean
    sd = (states @ classes.sd**2).sqrt()
    mixed = Classes(mean, sd, weight)
    out = prob.clone()
    place = None if log_prior is None else log_prior[:, mask]
    for _ in range(3):
        near = neighbour_sum(out, spacing_mm)[:, mask]
        fraction = torch.empty_like(near)
        for start in range(0, flat.shape[0], _SLAB_VOXELS):
            window = slice(start, start + _SLAB_VOXELS)
            energy = settings.beta * (states @ near[:, window])
            if place is not None:
                energy += states @ place[:, window]
            fraction[:, window] = states.T @ posterior_of(flat[window], mixed, energy)[0]
        out[:, mask] = fraction
    return out


def _states(classes: Classes, mixture_weight: float) -> tuple[Tensor, Tensor]:
    n = len(classes.mean)
    rows = list(torch.eye(n))
    weights = [float(w) * (1 - mixture_weight) for w in classes.weight]
    fractions = (0.1, 0.3, 0.5, 0.7, 0.9)
    pairs = list(combinations(range(n), 2))
    for a, b in pairs:
        for f in fractions:
            row = torch.zeros(n)
            row[a], row[b] = 1 - f, f
            rows.append(row)
            weights.append(mixture_weight / len(pairs) / len(fractions))
    return torch.stack(rows).to(classes.mean.dtype), torch.tensor(weights, dtype=classes.mean.dtype)


def initial_classes(values: Tensor, settings: ModelSettings) -> Classes:
    """Return classes fitted to the histogram of `values`, from several starts; the likeliest wins."""
    low, high = robust_range(values)
    edges = torch.linspace(low, high, 201, dtype=torch.float64)
    count = torch.histc(values.double(), 200, low, high)
    centre = (edges[1:] + edges[:-1]) / 2
    share = count / count.sum()
    prior = torch.tensor(settings.weights, dtype=torch.float64)
    best: tuple[float, Classes] | None = None
    cumulative = share.cumsum(0)
    for tilt in (0.5, 1.0, 2.0):
        first = prior[0] * tilt / (1 + prior[0] * (tilt - 1))
        weights = torch.cat([first[None], prior[1:] * (1 - first) / prior[1:].sum()])
        middle = weights.cumsum(0) - weights / 2
        mean = centre[torch.searchsorted(cumulative, middle).clamp_max(199)]
        score, classes = _histogram_em(
            centre, share, Classes(mean, torch.full_like(mean, (high - low) / 8), weights), prior
        )
        if best is None or score > best[0]:
            best = score, classes
    if best is None:
        raise BadInputError("no start for the tissue classes; at least one is needed")
    c = best[1]
    return Classes(c.mean.to(values.dtype), c.sd.to(values.dtype), c.weight.to(values.dtype))


def expected_classes(values: Tensor, log_prior: Tensor, settings: ModelSettings) -> Classes:
    """Return classes of the voxels (N,), each from where `log_prior` (K, N) expects it; of all if that is nowhere."""
    # Squared: blurred priors overlap, and what is expected with little doubt shall count.
    weight = torch.softmax(log_prior, 0) ** 2
    total = weight.sum(1).clamp_min(1e-6)
    mean = (weight @ values) / total
    sd = ((weight * (values - mean[:, None]) ** 2).sum(1) / total).sqrt()
    if bool((mean.diff() < SMALLEST_GAP * 0.7 * (sd[1:] + sd[:-1])).any()):
        return initial_classes(values, settings)
    # Other tissues among these voxels widen a class.
    return Classes(mean, 0.7 * sd.clamp_min(1e-3), torch.tensor(settings.weights, dtype=values.dtype))


def _histogram_em(centre: Tensor, share: Tensor, classes: Classes, prior: Tensor) -> tuple[float, Classes]:
    strength = 0.2
    spread = float((share * (centre - (share * centre).sum()) ** 2).sum().sqrt())
    score = -math.inf
    for _ in range(150):
        posterior, density = posterior_of(centre, classes, None)
        score = float((share * density).sum() + strength * (prior * classes.weight.log()).sum())
        mass = posterior * share
        total = mass.sum(1).clamp_min(1e-9)
        mean = (mass @ centre) / total
        sd = ((mass * (centre - mean[:, None]) ** 2).sum(1) / total).sqrt().clamp(0.08 * spread, 0.6 * spread)
        weight = (total + strength * prior) / (1 + strength)
        order = torch.argsort(mean)
        classes = Classes(mean[order], sd[order], weight[order] / weight.sum())
    return score, classes


def _median(values: Tensor) -> float:
    return float(values[:: max(1, values.numel() // 500_000)].median())


def robust_range(values: Tensor) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentile of `values` (by sorting a sample: `torch.quantile` fails above 2^24)."""
    flat = values.reshape(-1)
    ordered = flat[:: max(1, flat.numel() // 500_000)].sort().values
    n = ordered.numel()
    return float(ordered[int(0.005 * n)]), float(ordered[min(n - 1, int(0.995 * n))])


def update_bias(sample: _Sample, posterior: Tensor, classes: Classes, coefficients: Tensor, stiffness: float) -> Tensor:
    """Return polynomial coefficients of log bias: weighted least squares of log y - log(expected class mean)."""
    if coefficients.numel() == 0:
        return coefficients
    flat = sample.y / (sample.basis @ coefficients).exp()
    precision = posterior * inlier_weight(flat, classes) / classes.sd[:, None] ** 2
    total = precision.sum(0)
    expected = (classes.mean.clamp_min(1e-3) @ precision) / total.clamp_min(1e-12)
    # d log y = dy / y: the precision of a log is that of the value times its mean squared.
    weight = total * expected**2
    # Dark voxels say little in the log, and what they say is skewed.
    weight = torch.where(expected > 0.25 * classes.mean[-1], weight, 0.0)
    residual = (sample.y.clamp_min(1e-3) / expected.clamp_min(1e-3)).log().clamp(-1, 1)
    weighted = sample.basis * weight[:, None]
    normal = (weighted.T @ sample.basis).double()
    ridge = stiffness * normal.diagonal().mean() * torch.eye(normal.shape[0], dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(normal + ridge, (weighted.T @ residual).double())
    return solution.to(sample.y.dtype)


def bias_field(coefficients: Tensor, shape: torch.Size, order: int) -> Tensor:
    """Evaluate exp(polynomial) on the whole block (X, Y, Z)."""
    if order == 0:
        return torch.ones(shape, dtype=coefficients.dtype)
    cube = torch.zeros((order + 1,) * 3, dtype=coefficients.dtype)
    for value, (a, b, c) in zip(coefficients, _powers(order), strict=True):
        cube[a, b, c] = value
    x, y, z = (_legendre(torch.linspace(-1, 1, n, dtype=coefficients.dtype), order) for n in shape)
    log_bias: Tensor = torch.einsum("abc,xa,yb,zc->xyz", cube, x, y, z)
    return log_bias.exp()


def _powers(order: int) -> list[tuple[int, int, int]]:
    """Exponents of the polynomial terms; the constant is left to the class means."""
    return [(a, b, c) for a, b, c in product(range(order + 1), repeat=3) if 0 < a + b + c <= order]


def _legendre(t: Tensor, order: int) -> Tensor:
    columns = [torch.ones_like(t), t]
    for n in range(1, order):
        columns.append(((2 * n + 1) * t * columns[n] - n * columns[n - 1]) / (n + 1))
    return torch.stack(columns[: order + 1], -1)


def _sample(y: Tensor, mask: Tensor, spacing_mm: Triple, order: int) -> _Sample:
    steps = [max(1, round(2.0 / s)) for s in spacing_mm]
    sparse = torch.zeros_like(mask)
    sparse[:: steps[0], :: steps[1], :: steps[2]] = True
    index = torch.nonzero(mask & sparse, as_tuple=True)
    axes = [_legendre(torch.linspace(-1, 1, n, dtype=y.dtype), order)[i] for n, i in zip(y.shape, index, strict=True)]
    terms = [axes[0][:, a] * axes[1][:, b] * axes[2][:, c] for a, b, c in _powers(order)]
    basis = torch.stack(terms, -1) if terms else y.new_zeros((len(index[0]), 0))
    # Without its mean in the mask, the bias cannot trade a factor with the class means.
    return _Sample(y[index], basis, (index[0], index[1], index[2]))


def _log_normal(flat: Tensor, classes: Classes) -> Tensor:
    z = (flat[None] - classes.mean[:, None]) / classes.sd[:, None]
    return -0.5 * z**2 - classes.sd.log()[:, None] - 0.5 * math.log(2 * math.pi)


def _change(old: Classes, new: Classes) -> float:
    """Largest change of a class mean or sd, relative to the span of the means."""
    span = float(new.mean[-1] - new.mean[0]) + 1e-6
    return float(torch.stack([(new.mean - old.mean).abs().max(), (new.sd - old.sd).abs().max()]).max()) / span
