"""The reconstructions that the fingerprinting benchmark compares: all start from the same data and coil maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fingerprinting.scene import Truth
from mrcore.denoisers.classical import tv_denoiser
from mrcore.denoisers.files import shipped_denoiser
from mrcore.denoisers.trained import sliced_denoiser
from mrcore.denoisers.unet import Denoise
from mrcore.signals.mrf_sequence import MrfSequence
from recon.coils.maps import coil_maps_from_data
from recon.dictionary.dictionary import Dictionary, SignalModel, build_dictionary, log_grid, signal_blocks
from recon.dictionary.match_index import MatchIndex, match_index
from recon.encoding.encoding import Encoding, subspace_encoding
from recon.encoding.subspace import subspace_of
from recon.methods.baselines import LlrSettings, LrtvSettings, locally_low_rank, lrtv, subspace_cg, svd_mrf
from recon.methods.maps import Maps, maps_of, support
from recon.methods.mri2qmap import mri2qmap
from recon.methods.pnp import pnp_admm
from recon.rawdata import RawData
from recon.trajectories.density import density_compensation

RANK = 5
T1_RANGE_S, T2_RANGE_S, STEP = (0.1, 5.5), (0.01, 4.4), 0.05


@dataclass(frozen=True, eq=False)
class Model:
    """What the reconstruction knows of the sequence: the dictionary in its subspace, and the index of its atoms."""

    dictionary: Dictionary
    index: MatchIndex


@dataclass(frozen=True)
class Ready:
    """One scan, prepared: data, what is known of the signal, coil maps and density compensation."""

    raw: RawData
    model: Model
    coil_maps: Tensor
    density: Tensor

    @cached_property
    def balanced(self) -> Encoding:
        """Least squares with the root of the density compensation: between the least noise and the fastest."""
        return self._encoding(self.density.sqrt())

    @cached_property
    def compensated(self) -> Encoding:
        """Least squares weighted by the density compensation."""
        return self._encoding(self.density)

    @cached_property
    def mask(self) -> Tensor:
        """Voxels with signal, found from the data alone."""
        return support(svd_mrf(self.compensated, self.raw.samples))

    @cached_property
    def denoise(self) -> Denoise:
        """The shipped 2-D net."""
        return sliced_denoiser(shipped_denoiser(2), axes=(2,))

    def maps(self, coefficients: Tensor) -> Maps:
        """Return the maps of coefficients, matched and refined alike for all methods."""
        return maps_of(self.model.dictionary, coefficients, self.mask, self.model.index)

    def _encoding(self, weights: Tensor | None) -> Encoding:
        subspace = self.model.dictionary.subspace
        if subspace is None:
            raise ValueError("the model has no subspace")
        return subspace_encoding(self.raw.trajectory, subspace, self.coil_maps, weights)


Method = Callable[[Ready], Maps]


def model_of(sequence: MrfSequence, signal: SignalModel, rank: int = RANK) -> Model:
    """Return dictionary and index of a train whose signals are `signal`, with B1 = 1."""
    grid = log_grid(T1_RANGE_S, T2_RANGE_S, STEP)
    subspace = subspace_of(signal_blocks(grid, signal, sequence.n_frames), rank)
    dictionary = build_dictionary(grid, signal, sequence.n_frames, subspace)
    return Model(dictionary, match_index(dictionary.atoms))


def prepared(raw: RawData, model: Model) -> Ready:
    """Return a scan with coil maps from its own data; a single coil has a map of ones."""
    density = density_compensation(raw.trajectory)
    if raw.n_coils == 1:
        return Ready(raw, model, torch.ones((1, *raw.grid.shape), dtype=raw.samples.dtype), density)
    return Ready(raw, model, coil_maps_from_data(raw, density), density)


def _svd_mrf(ready: Ready) -> Maps:
    return ready.maps(svd_mrf(ready.compensated, ready.raw.samples))


def _subspace_cg(ready: Ready) -> Maps:
    return ready.maps(subspace_cg(ready.balanced, ready.raw.samples).x)


def _lrtv(ready: Ready) -> Maps:
    return ready.maps(lrtv(ready.balanced, ready.raw.samples, LrtvSettings()).x)


def _llr(ready: Ready) -> Maps:
    return ready.maps(locally_low_rank(ready.balanced, ready.raw.samples, LlrSettings()).x)


def _pnp(ready: Ready) -> Maps:
    return ready.maps(pnp_admm(ready.balanced, ready.raw.samples, ready.denoise).x)


def _mri2qmap(ready: Ready) -> Maps:
    found = mri2qmap(ready.balanced, ready.raw.samples, ready.model.dictionary, ready.denoise, mask=ready.mask)
    return found.maps


def _mri2qmap_tv(ready: Ready) -> Maps:
    found = mri2qmap(ready.balanced, ready.raw.samples, ready.model.dictionary, tv_denoiser(), mask=ready.mask)
    return found.maps


MRI2QMAP, LRTV = "MRI2Qmap", "LRTV"
METHODS: Mapping[str, Method] = {
    "SVD-MRF": _svd_mrf,
    "subspace CG": _subspace_cg,
    LRTV: _lrtv,
    "LLR": _llr,
    "PnP": _pnp,
    "MRI2Qmap, TV for the net": _mri2qmap_tv,
    MRI2QMAP: _mri2qmap,
}
BASELINES = ("SVD-MRF", "subspace CG", LRTV, "LLR", "PnP")


def errors_in(truth: Truth, pd: Tensor, maps: Maps) -> dict[str, float]:
    """Return MAPE and NRMSE in % of T1, T2 and PD in each tissue, and their PSNR in dB over all three.

    MAPE is the mean of |error| / truth over a tissue's voxels, NRMSE the root mean square error over that of the truth;
    PSNR takes the 99th percentile of the truth for its peak. PD is its magnitude, with one scale for the whole image,
    which no reconstruction can know, fitted to the truth.
    """
    brain = torch.stack(list(truth.tissues.values())).any(0)
    found = maps.pd.abs()
    found = found * float((found * pd)[brain].sum() / found[brain].square().sum().clamp_min(1e-30))
    out: dict[str, float] = {}
    for quantity, value, true in (("T1", maps.t1_s, truth.t1_s), ("T2", maps.t2_s, truth.t2_s), ("PD", found, pd)):
        error = value - true
        for tissue, inside in truth.tissues.items():
            share = error[inside].abs() / true[inside]
            relative = float(error[inside].square().mean() / true[inside].square().mean()) ** 0.5
            out |= {f"{quantity} {tissue} MAPE %": 100 * float(share.mean())}
            out |= {f"{quantity} {tissue} NRMSE %": 100 * relative}
        peak = float(true[brain].quantile(0.99))
        out[f"{quantity} PSNR dB"] = float(10 * torch.log10(peak**2 / error[brain].square().mean()))
    return out
