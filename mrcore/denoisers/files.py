"""Denoisers on disk: safetensors with settings and model card inside, and the card as JSON beside it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mrcore.denoisers.unet import DenoiserNet, DenoiserSettings, denoise
from mrcore.errors import BadInputError
from mrcore.io.tensors import read_network, save_network
from mrcore.random import seeded

_IDENTITY = ("mrkit denoiser", "1")


@dataclass(frozen=True)
class TrainingSource:
    """A file that a net was trained on."""

    name: str
    sha256: str
    licence: str = "not stated"


@dataclass(frozen=True)
class ModelCard:
    """What a user must know of a trained net.

    `noise_range` is the sd of the noise in training, relative to the 99th percentile of an image. `held_out` names
    each test and its PSNR in dB.
    """

    sources: tuple[TrainingSource, ...]
    noise_range: tuple[float, float]
    seed: int
    n_steps: int
    held_out: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A trained net with its card; calling it with (image, sigma) denoises, see `mrcore.denoisers.unet.denoise`.

    With `bf16` it computes in bfloat16, three times faster on processors that have it (`has_bf16`). It computes where
    its net is, and returns the image where it came from.
    """

    net: DenoiserNet
    card: ModelCard
    bf16: bool = False

    def __call__(self, image: Tensor, sigma: float) -> Tensor:
        there = image.to(next(self.net.parameters()).device)
        with torch.autocast(there.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            return denoise(self.net, there, sigma).to(image.device)

    def to(self, device: torch.device | str) -> Denoiser:
        """Return the denoiser on `device`."""
        return replace(self, net=copy.deepcopy(self.net).to(device))


def has_bf16(device: torch.device | str = "cpu") -> bool:
    """Tell whether `device` computes in bfloat16 natively; others emulate it, slowly."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # no public name yet
    return bool(supported is not None and supported())


def save_denoiser(
    denoiser: Denoiser, path: str | Path, *, dtype: torch.dtype = torch.float32, force: bool = False
) -> Path:
    """Write weights, in `dtype`, with settings and card as .safetensors, and settings and card as .json beside it.

    Raises:
        BadInputError: a name that does not end in .safetensors, or files that exist while `force` is off.
    """
    path = Path(path)
    net, card = denoiser.net, asdict(denoiser.card)
    save_network(net.state_dict(), path, _IDENTITY, asdict(net.settings), card, dtype=dtype, force=force)
    return path


def load_denoiser(path: str | Path, device: torch.device | str = "cpu") -> Denoiser:
    """Load what `save_denoiser` wrote, in float32, on `device`.

    Raises:
        BadInputError: no such file, a file of another kind or version, or weights that do not fit their settings.
    """
    path = Path(path)
    header, weights = read_network(path, _IDENTITY, "mrkit train-denoiser")
    try:
        settings = json.loads(header["settings"])
        net = DenoiserNet(DenoiserSettings(**{**settings, "widths": tuple(settings["widths"])}), seeded(0, "loaded"))
        net.load_state_dict(weights)
        card = _card(json.loads(header["card"]))
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise BadInputError(f"{path}: weights, settings and card do not fit ({error}); copy the file again") from error
    return Denoiser(net.to(device).eval().requires_grad_(False), card)


def shipped_denoiser(n_dims: int, device: torch.device | str = "cpu") -> Denoiser:
    """Load the denoiser for images of 2 or 3 dimensions that comes with mrkit.

    Raises:
        BadInputError: there is none for these dimensions.
    """
    with as_file(files("mrcore.denoisers") / "weights" / f"denoiser_{n_dims}d.safetensors") as path:
        return load_denoiser(path, device)


def _card(content: Mapping[str, Any]) -> ModelCard:
    low, high = content["noise_range"]
    return ModelCard(
        sources=tuple(TrainingSource(**source) for source in content["sources"]),
        noise_range=(float(low), float(high)),
        seed=int(content["seed"]),
        n_steps=int(content["n_steps"]),
        held_out=dict(content["held_out"]),
        notes=tuple(content["notes"]),
    )
