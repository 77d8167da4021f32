"""Gabor wavelet layers: cos(w u) exp(-(s u)^2) of an affine map u of the input.

Real single-map form of the complex Gabor activation of WIRE (Saragadam et al., CVPR 2023). Layers are
feature-first, (channels, points), so that a lattice is decoded without a transpose.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn


class _GaborFunction(torch.autograd.Function):
    """The wavelet and its derivative in one sweep: the backward pass is then a single product."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, frequency: float, decay: float) -> Tensor:  # noqa: ANN401  autograd's own type
        phase = frequency * u
        envelope = u.square().mul_(-(decay**2)).exp_()
        wave = torch.cos(phase).mul_(envelope)
        if ctx.needs_input_grad[0]:
            slope = torch.sin(phase).mul_(envelope).mul_(-frequency)
            ctx.save_for_backward(slope.addcmul_(u, wave, value=-2 * decay**2))
        return wave

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None


def gabor(u: Tensor, frequency: float, decay: float) -> Tensor:
    """Return cos(frequency u) exp(-(decay u)^2)."""
    return cast("Tensor", _GaborFunction.apply(u, frequency, decay))  # type: ignore[no-untyped-call]


class GaborLayer(nn.Module):
    """Affine map followed by the wavelet, on (n_in, points).

    Weights are uniform within sqrt(6 / n_in) / frequency, which keeps the variance of the phase from layer to layer
    (Sitzmann et al., NeurIPS 2020, section 3.2); biases are uniform within pi / frequency, so that the units start
    at all phases.
    """

    def __init__(self, n_in: int, n_out: int, frequency: float, decay: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = math.sqrt(6 / n_in) / frequency
        self.weight = nn.Parameter(uniform((n_out, n_in), bound, generator))
        self.bias = nn.Parameter(uniform((n_out, 1), math.pi / frequency, generator))
        self.frequency, self.decay = frequency, decay

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n_in, points) to (n_out, points)."""
        return gabor(self.weight @ x + self.bias, self.frequency, self.decay)


class LinearLayer(nn.Module):
    """Affine map on (n_in, points) that starts at zero weights: the network begins as the constant `bias`."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n_in, points) to (n_out, points)."""
        return self.weight @ x + self.bias


class Decoder(nn.Module):
    """Gabor layers plus a linear path from the features to the outputs, which the descent conditions much better."""

    def __init__(self, hidden: nn.Module, n_in: int, n_hidden: int, n_outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = hidden
        self.head = LinearLayer(n_hidden, n_outputs)
        self.direct = nn.Parameter(torch.randn(n_outputs, n_in, generator=generator))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(self.hidden(features)) + self.direct @ features
        return out


def uniform(shape: tuple[int, int], bound: float, generator: torch.Generator) -> Tensor:
    """Draw numbers uniformly between -`bound` and `bound`."""
    return (2 * torch.rand(shape, generator=generator) - 1) * bound
