"""Methods of `quantify`: from samples to images of the temporal components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mrcore.nets import Denoise
from mrcore.solve import Solution
from recon.baselines import LlrSettings, LrtvSettings, locally_low_rank, lrtv, subspace_cg, svd_mrf
from recon.dictionary import Dictionary
from recon.encoding import Encoding

Solve = Callable[[Encoding, Dictionary, Tensor, Denoise | None], Solution]
"""From encoding, dictionary, samples (C, N) and a denoiser (None: the usual one) to coefficients (K, X, Y, Z)."""


@dataclass(frozen=True)
class Method:
    """A method: how it is called, what its settings are, and how it solves."""

    title: str
    settings: object
    solve: Solve


@dataclass(frozen=True)
class LeastSquaresSettings:
    """Number of conjugate-gradient steps, which regularise by being few."""

    n_iter: int = 15


def gridding() -> Method:
    """Return the density-compensated adjoint: no inversion, aliasing remains."""

    def solve(encoding: Encoding, dictionary: Dictionary, samples: Tensor, denoiser: Denoise | None) -> Solution:
        return Solution(svd_mrf(encoding, samples), True, 1, (), "one step, no iteration")

    return Method("SVD-MRF", None, solve)


def least_squares(settings: LeastSquaresSettings | None = None) -> Method:
    """Return least squares by conjugate gradients."""
    chosen = settings or LeastSquaresSettings()
    return Method("Subspace CG", chosen, lambda encoding, _, samples, __: subspace_cg(encoding, samples, chosen.n_iter))


def total_variation(settings: LrtvSettings | None = None) -> Method:
    """Return least squares with the joint total variation of the components."""
    chosen = settings or LrtvSettings()
    return Method("LRTV", chosen, lambda encoding, _, samples, __: lrtv(encoding, samples, chosen))


def low_rank(settings: LlrSettings | None = None) -> Method:
    """Return least squares with locally low rank."""
    chosen = settings or LlrSettings()
    return Method(
        "Locally low rank", chosen, lambda encoding, _, samples, __: locally_low_rank(encoding, samples, chosen)
    )


METHODS: dict[str, Method] = {
    "cg": least_squares(),
    "lrtv": total_variation(),
    "llr": low_rank(),
    "svd": gridding(),
}
"""With the settings that serve most data, by the names of the command line."""

DEFAULT_METHOD = "lrtv"
