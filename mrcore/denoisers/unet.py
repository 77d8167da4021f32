"""Denoisers `(x, sigma) -> x`: a residual U-Net that is told the noise level, for 2-D and 3-D magnitude images.

After DRUNet (Zhang et al., IEEE TPAMI 2022;44:6360): the noise level is one more input channel and no layer has a
bias, so that scaling image and noise level scales the output (Mohan et al., ICLR 2020). As in FFDNet (Zhang et al.,
IEEE TIP 2018;27:4608) 2 x 2 (x 2) voxels are folded into channels first, which makes it several times cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.utils import skip_init

from mrcore.errors import BadInputError

Denoise = Callable[[Tensor, float], Tensor]
"""From a real image of any scale and the sd of its noise, in the same units, to the image without noise."""

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}  # a quarter faster on CPU, more in bfloat16
_WHOLE_VOXELS = 2**24


@dataclass(frozen=True)
class DenoiserSettings:
    """Size of a `DenoiserNet`.

    `widths` are the channels at 1/2, 1/4, ... of the resolution; each level has `n_blocks` residual blocks of two
    convolutions on the way down and as many on the way up, the last level once `n_blocks`.

    Raises:
        BadInputError: dimensions other than 2 and 3, or sizes below 1.
    """

    n_dims: int = 3
    widths: tuple[int, ...] = (48, 64, 64)
    n_blocks: int = 1

    def __post_init__(self) -> None:
        if self.n_dims not in _CONV:
            raise BadInputError(f"a denoiser works on 2 or 3 dimensions, got {self.n_dims}")
        if not self.widths or min(self.widths) < 1 or self.n_blocks < 1:
            raise BadInputError(f"a denoiser needs levels with channels and at least one block in each, got {self}")

    @property
    def stride(self) -> int:
        """Voxels on a side that are one position of the coarsest level."""
        return 1 << len(self.widths)

    @property
    def halo(self) -> int:
        """Voxels, a multiple of `stride`, beyond which nothing reaches an output voxel."""
        last = len(self.widths) - 1
        n_convolutions = [2 * self.n_blocks * (1 if level == last else 2) for level in range(last + 1)]
        n_convolutions[0] += 2  # head and tail
        reach = sum(n << (level + 1) for level, n in enumerate(n_convolutions))
        # A voxel shares its position on each level with others, up to stride - 1 away.
        return math.ceil((reach + self.stride - 1) / self.stride) * self.stride


class DenoiserNet(nn.Module):
    """The network; `forward` takes images (B, X, Y[, Z]) of about unit scale and the sd of their noise (B,).

    Any image size serves: edges are repeated up to a multiple of `settings.stride`. At initialisation, which
    `generator` decides, it returns its input.
    """

    def __init__(self, settings: DenoiserSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        n_dims, widths, n_folded = settings.n_dims, settings.widths, 2**settings.n_dims
        self.head = _convolution(n_dims, n_folded + 1, widths[0])
        self.down_blocks = nn.ModuleList([_blocks(n_dims, width, settings.n_blocks) for width in widths])
        self.up_blocks = nn.ModuleList([_blocks(n_dims, width, settings.n_blocks) for width in widths[:-1]])
        self.down = nn.ModuleList([_layer(_CONV[n_dims], a, b, kernel_size=2, stride=2) for a, b in pairwise(widths)])
        self.up = nn.ModuleList(
            [_layer(_TRANSPOSED[n_dims], b, a, kernel_size=2, stride=2) for a, b in pairwise(widths)]
        )
        self.tail = _convolution(n_dims, widths[0], n_folded)
        for parameter in self.parameters():
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        for block in self.modules():
            if isinstance(block, _Block):
                nn.init.zeros_(block.get_parameter("second.weight"))
        nn.init.zeros_(self.get_parameter("tail.weight"))
        self.to(memory_format=_CHANNELS_LAST[n_dims])  # type: ignore[call-overload]

    def forward(self, images: Tensor, sigma: Tensor) -> Tensor:
        n_dims, shape = self.settings.n_dims, images.shape[1:]
        missing = [-n % self.settings.stride for n in shape]
        padded = images[:, None]
        if any(missing):
            padded = functional.pad(padded, [p for n in reversed(missing) for p in (0, n)], mode="replicate")
        folded = _fold(padded)
        level = sigma.to(folded).reshape(-1, *[1] * (n_dims + 1)).expand(-1, 1, *folded.shape[2:])
        noise = _unfold(self._estimate(torch.cat([folded, level], 1)))
        return images - noise[(slice(None), *map(slice, shape))]

    def _estimate(self, folded: Tensor) -> Tensor:
        """Return the folded noise from the folded image and its noise level."""
        now = self.head(folded.contiguous(memory_format=_CHANNELS_LAST[self.settings.n_dims]))
        kept = []
        for blocks, down in zip(self.down_blocks, self.down, strict=False):
            kept.append(blocks(now))
            now = down(kept[-1])
        now = self.down_blocks[-1](now)
        for blocks, up, skip in reversed(list(zip(self.up_blocks, self.up, kept, strict=True))):
            now = blocks(up(now) + skip)
        out: Tensor = self.tail(now)
        return out


class _Block(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, n_dims: int, width: int) -> None:
        super().__init__()
        self.first = _convolution(n_dims, width, width)
        self.second = _convolution(n_dims, width, width)

    def forward(self, x: Tensor) -> Tensor:
        # In place, which gradients allow here: half the memory.
        inner: Tensor = self.second(functional.relu(self.first(x), inplace=True))
        return inner.add_(x)


def denoise(net: DenoiserNet, image: Tensor, sigma: float, max_voxels: int = _WHOLE_VOXELS) -> Tensor:
    """Return `image` (..., X, Y) or (..., X, Y, Z), by the dimensions of `net`, without noise of sd `sigma`.

    Leading axes are images apart; all share one scale, which is taken out for the network and put back. Images of
    more than `max_voxels` are worked on in slabs along their longest axis, with the same result. Slabs overlap by the
    halo of the net; they are never thinner than three halos, so that the work is at most trebled. The nets of
    `mrkit train-denoiser` take 0.15 kB a voxel. No gradients flow.

    Raises:
        BadInputError: a complex image or one with too few axes, or a sigma that is negative or not finite.
    """
    n_dims = net.settings.n_dims
    if image.ndim < n_dims or not image.is_floating_point():
        raise BadInputError(
            f"the denoiser needs a real image of {n_dims} axes or more, got {image.ndim}-D {image.dtype}"
        )
    if not 0 <= sigma < math.inf:
        raise BadInputError(f"the sd of the noise must be finite and not negative, got {sigma}")
    scale = _scale(image)
    if scale == 0 or sigma == 0:
        return image.clone()
    images = image.reshape(-1, *image.shape[-n_dims:])
    out = torch.empty_like(images)
    at_once = max(1, max_voxels // images[0].numel())
    with torch.no_grad():
        for first in range(0, len(images), at_once):
            part = slice(first, first + at_once)
            out[part] = _in_slabs(net, images[part] / scale, sigma / scale, max_voxels) * scale
    return out.reshape(image.shape)


def denoise_slices(
    net: DenoiserNet, volume: Tensor, sigma: float, axes: tuple[int, ...] = (0, 1, 2), max_voxels: int = _WHOLE_VOXELS
) -> Tensor:
    """Return `volume` (X, Y, Z) denoised slice by slice by a 2-D net, the mean over slices across each of `axes`.

    Raises:
        BadInputError: a net that is not 2-D, a volume that is not 3-D, or no axes.
    """
    if net.settings.n_dims != 2 or volume.ndim != 3 or not axes:
        raise BadInputError(
            f"slices of a volume need a 2-D net, a 3-D volume and an axis, got a {net.settings.n_dims}-D net, "
            f"{volume.ndim} axes and slices across {axes}"
        )
    total = torch.zeros_like(volume)
    for axis in axes:
        total += denoise(net, volume.movedim(axis, 0), sigma, max_voxels).movedim(0, axis)
    return total / len(axes)


def geometric(first: float, last: float, n: int) -> tuple[float, ...]:
    """Return `n` noise levels from `first` to `last` with one ratio; `first` alone where n is 1."""
    return tuple(first * (last / first) ** (i / max(1, n - 1)) for i in range(n))


def _in_slabs(net: DenoiserNet, images: Tensor, sigma: float, max_voxels: int) -> Tensor:
    """Return images (B, X, Y[, Z]) denoised in slabs that overlap by the reach of the network."""
    levels = torch.full(images.shape[:1], sigma, dtype=images.dtype, device=images.device)
    dtype = next(net.parameters()).dtype
    halo, stride = net.settings.halo, net.settings.stride
    axis = 1 + int(np.argmax(images.shape[1:]))
    length = images.shape[axis]
    fits = max_voxels * length // images.numel()
    step = max(halo, (fits - 2 * halo) // stride * stride) if fits < length else length
    out = torch.empty_like(images)
    for start in range(0, length, step):
        stop, low = min(start + step, length), max(0, start - halo)
        high = min(length, stop + halo)
        slab = images.narrow(axis, low, high - low).to(dtype)
        inner = net(slab, levels).narrow(axis, start - low, stop - start)
        out.narrow(axis, start, stop - start).copy_(inner)
    return out


def _scale(image: Tensor) -> float:
    """Return the 99th percentile of the magnitudes, or the largest where that is 0."""
    magnitudes = image.detach().abs().reshape(-1).cpu().numpy()
    if not magnitudes.size:
        return 0.0
    rank = int(0.99 * (magnitudes.size - 1))
    return float(np.partition(magnitudes, rank)[rank]) or float(magnitudes.max())


def _fold(x: Tensor) -> Tensor:
    """Return (B, 1, 2 X, 2 Y, ...) as (B, 2^n, X, Y, ...)."""
    n_dims = x.ndim - 2
    halves = [part for n in x.shape[2:] for part in (n // 2, 2)]
    order = (0, *range(2, 2 * n_dims + 1, 2), *range(1, 2 * n_dims, 2))
    return x.reshape(len(x), *halves).permute(order).reshape(len(x), 2**n_dims, *halves[::2])


def _unfold(x: Tensor) -> Tensor:
    """Return (B, 2^n, X, Y, ...) as (B, 2 X, 2 Y, ...)."""
    n_dims = x.ndim - 2
    order = (0, *(axis for d in range(n_dims) for axis in (1 + n_dims + d, 1 + d)))
    return x.reshape(len(x), *[2] * n_dims, *x.shape[2:]).permute(order).reshape(len(x), *[2 * n for n in x.shape[2:]])


def _convolution(n_dims: int, n_in: int, n_out: int) -> nn.Module:
    return _layer(_CONV[n_dims], n_in, n_out, kernel_size=3, padding=1)


def _layer(
    kind: type[nn.Module], n_in: int, n_out: int, *, kernel_size: int, stride: int = 1, padding: int = 0
) -> nn.Module:
    """Return a layer without bias whose weights are not set: nothing is drawn from the global generator."""
    layer: nn.Module = skip_init(  # type: ignore[no-untyped-call]
        kind, n_in, n_out, kernel_size=kernel_size, stride=stride, padding=padding, bias=False
    )
    return layer


def _blocks(n_dims: int, width: int, n_blocks: int) -> nn.Sequential:
    return nn.Sequential(*[_Block(n_dims, width) for _ in range(n_blocks)])
