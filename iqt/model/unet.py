"""The folded residual U-Net: convolutions down and up, a transformer at the coarsest level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from iqt.model.blocks import Residual, TimeCode, Transformer
from iqt.model.folding import fold, unfold
from mrcore.data.grid import Shape3
from mrcore.errors import BadInputError

_STRIDES: tuple[Shape3, Shape3] = ((2, 2, 1), (2, 2, 2))  # in plane first: folded voxels are long along the slices


@dataclass(frozen=True)
class UNetSettings:
    """Size of a `FoldedUNet`.

    Attributes:
        fold: object voxels that become channels, along each axis; the slice axis is last.
        widths: channels of the three levels.
        n_blocks: residual blocks on the way down; on the way up each of the two finer levels has one.
        n_transformers: transformer blocks at the coarsest level; 0 for a purely convolutional network.
        n_heads: heads of attention; they divide the last width.
        n_images: images that come in.
        n_conditions: numbers that are told beside them, as constant channels.
        timed: whether the time of a diffusion is told.

    Raises:
        BadInputError: sizes below 1 or that do not divide.
    """

    fold: Shape3 = (2, 2, 5)
    widths: tuple[int, int, int] = (40, 80, 128)
    n_blocks: tuple[int, int, int] = (1, 2, 1)
    n_transformers: int = 2
    n_heads: int = 4
    n_images: int = 1
    n_conditions: int = 3
    timed: bool = False

    def __post_init__(self) -> None:
        for name in ("fold", "widths", "n_blocks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 3 or min(getattr(self, name)) < 1:
                raise BadInputError(f"{name} of the network needs three numbers from 1, got {getattr(self, name)}")
        if min(self.n_transformers, self.n_conditions) < 0 or min(self.n_heads, self.n_images) < 1:
            raise BadInputError(f"a network needs at least one image and one head, got {self}")
        if self.widths[2] % self.n_heads:
            raise BadInputError(f"{self.n_heads} heads do not divide a width of {self.widths[2]}")

    @property
    def multiple(self) -> Shape3:
        """Object voxels of which the sizes that come in must be multiples."""
        a, b, c = (f * s * t for f, s, t in zip(self.fold, *_STRIDES, strict=True))
        return a, b, c


class FoldedUNet(nn.Module):
    """The network; (B, n_images, X, Y, Z) and conditions (B, n_conditions) to one image (B, X, Y, Z).

    At initialisation, which follows torch's generator, the output is small.
    """

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        n_folded, w = math.prod(settings.fold), settings.widths
        self.stem = nn.Conv3d(n_folded * settings.n_images + settings.n_conditions, w[0], 3, padding=1)
        self.encoder = nn.ModuleList([_blocks(w[level], settings.n_blocks[level]) for level in range(3)])
        self.down = nn.ModuleList([nn.Conv3d(w[i], w[i + 1], s, stride=s) for i, s in enumerate(_STRIDES)])
        self.transformers = nn.ModuleList([Transformer(w[2], settings.n_heads) for _ in range(settings.n_transformers)])
        self.up = nn.ModuleList([nn.ConvTranspose3d(w[i + 1], w[i], s, stride=s) for i, s in enumerate(_STRIDES)])
        self.decoder = nn.ModuleList([_blocks(w[level], 1) for level in range(2)])
        self.head = nn.Conv3d(w[0], n_folded, 3, padding=1)
        self.time = TimeCode(w) if settings.timed else None
        with torch.no_grad():
            self.head.weight.mul_(0.1)
        nn.init.zeros_(self.get_parameter("head.bias"))
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, images: Tensor, conditions: Tensor, time: Tensor | None = None) -> Tensor:
        """Run the network; sizes must be multiples of `settings.multiple`, `time` (B,) lies between 0 and 1."""
        shifts = self.shifts(time)
        fine = run_blocks(self.encoder[0], self.enter(fold(images, self.settings.fold), conditions), shifts[0])
        middle = run_blocks(self.encoder[1], self.down[0](fine), shifts[1])
        coarse = self.attend(run_blocks(self.encoder[2], self.down[1](middle), shifts[2]))
        middle = run_blocks(self.decoder[1], middle + self.up[1](coarse), shifts[1])
        fine = run_blocks(self.decoder[0], fine + self.up[0](middle), shifts[0])
        return unfold(self.head(functional.relu(fine)), self.settings.fold)[:, 0]

    def shifts(self, time: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return what the time of a diffusion adds at each level (B, C), None where no time is told."""
        if self.time is None:
            return None, None, None
        out: tuple[Tensor, ...] = self.time(time)
        return out

    def enter(self, folded: Tensor, conditions: Tensor) -> Tensor:
        """Return the first map from folded images (B, C, X, Y, Z) and conditions."""
        told = conditions.to(folded)[:, :, None, None, None].expand(-1, -1, *folded.shape[2:])
        out: Tensor = self.stem(torch.cat([folded, told], 1).contiguous(memory_format=torch.channels_last_3d))
        return out

    def attend(self, coarse: Tensor) -> Tensor:
        """Return the coarsest map after attention over all of its positions."""
        for transformer in self.transformers:
            coarse = transformer(coarse)
        return coarse


def _blocks(width: int, n: int) -> nn.ModuleList:
    return nn.ModuleList([Residual(width) for _ in range(n)])


def run_blocks(blocks: nn.Module, x: Tensor, shift: Tensor | None) -> Tensor:
    """Run residual blocks one after another."""
    for block in blocks.children():
        x = block(x, shift)
    return x
