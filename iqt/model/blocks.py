"""Blocks of the network: residual convolutions without norms, and a transformer over all positions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class Residual(nn.Module):
    """x + conv(relu(conv(x) + shift)): no norm, so that an output depends on its surroundings alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)
        nn.init.zeros_(self.get_parameter("second.bias"))

    def forward(self, x: Tensor, shift: Tensor | None) -> Tensor:
        """Map (B, C, X, Y, Z) to the same; `shift` (B, C) is added between the convolutions."""
        inner = self.first(x)
        if shift is not None:
            inner = inner + shift[:, :, None, None, None].to(inner.dtype)
        out: Tensor = x + self.second(functional.relu(inner))
        return out


class Transformer(nn.Module):
    """Self-attention over all positions of a block, then a perceptron; both add to what comes in.

    Positions have no code: convolutions before and after see neighbourhoods, attention compares contents, so that any
    size serves. The softmax is sharpened by log n / log n_reference, which keeps its entropy over the number of
    positions about that of blocks of n_reference (Chiang & Cholak, ACL 2022).
    """

    n_reference = 512

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        with torch.no_grad():
            self.mix.weight.mul_(0.1)
            self.narrow.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, X, Y, Z) to the same."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self._attend(self.norm_in(tokens))
        tokens = tokens + self.narrow(functional.gelu(self.widen(self.norm_out(tokens))))
        out: Tensor = tokens.transpose(1, 2).reshape(x.shape)
        return out

    def _attend(self, tokens: Tensor) -> Tensor:
        n, count, width = tokens.shape
        q, k, v = self.qkv(tokens).reshape(n, count, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        sharpness = math.log(max(count, 2)) / math.log(self.n_reference)
        mixed = functional.scaled_dot_product_attention(q * sharpness, k, v)
        out: Tensor = self.mix(mixed.transpose(1, 2).reshape(n, count, width))
        return out


class TimeCode(nn.Module):
    """Shifts of each level from the time of a diffusion, 0 to 1."""

    def __init__(self, widths: tuple[int, ...], n_frequencies: int = 16) -> None:
        super().__init__()
        self.widths = widths
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(1000), n_frequencies)), False)
        self.net = nn.Sequential(nn.Linear(2 * n_frequencies, 64), nn.ReLU(), nn.Linear(64, sum(widths)))

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """Map times (B,) to a shift (B, C) for each level."""
        angle = time[:, None] * self.get_buffer("frequencies")
        shifts: Tensor = self.net(torch.cat([angle.sin(), angle.cos()], 1))
        return torch.split(shifts, list(self.widths), 1)
