"""Restoration networks on disk: safetensors with settings and card inside, and the card as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from iqt.model.unet import UNetSettings
from iqt.restorer import Restorer
from mrcore.errors import BadInputError
from mrcore.io.tensors import read_network, save_network

_IDENTITY = ("mrkit restorer", "1")


@dataclass(frozen=True)
class RestorerCard:
    """What a user must know of a trained network.

    Attributes:
        sources: files that it was trained on: name, sha256 and licence of each.
        held_out: files that it was not, for validation.
        voxel_mm: in-plane and slice voxel (least, most) of the scans in training.
        wm_snr: least and most SNR.
        n_steps: length of the training.
        seed: of weights and pairs.
        gains_db: PSNR in the brain over the Wiener start on cubes of the heads that were held out, by test.
        notes: limits and failures that are known.
    """

    sources: tuple[Mapping[str, str], ...]
    held_out: tuple[str, ...]
    voxel_mm: tuple[tuple[float, float], tuple[float, float]]
    wm_snr: tuple[float, float]
    n_steps: int
    seed: int
    gains_db: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TrainedRestorer:
    """A network with its card."""

    net: Restorer
    card: RestorerCard


def save_restorer(
    trained: TrainedRestorer, path: str | Path, *, dtype: torch.dtype = torch.float16, force: bool = False
) -> Path:
    """Write weights, in `dtype`, with settings and card as .safetensors, and both as .json beside it.

    Raises:
        BadInputError: a name that does not end in .safetensors, or files that exist while `force` is off.
    """
    path = Path(path)
    settings, card = asdict(trained.net.net.settings), asdict(trained.card)
    save_network(trained.net.state_dict(), path, _IDENTITY, settings, card, dtype=dtype, force=force)
    return path


def load_restorer(path: str | Path, device: torch.device | str = "cpu") -> TrainedRestorer:
    """Load what `save_restorer` wrote, in float32, on `device`.

    Raises:
        BadInputError: no such file, a file of another kind or version, or weights that do not fit their settings.
    """
    path = Path(path)
    header, weights = read_network(path, _IDENTITY, "mrkit train-iqt")
    try:
        net = Restorer(UNetSettings(**json.loads(header["settings"])))
        net.load_state_dict(weights)
        card = RestorerCard(**json.loads(header["card"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInputError(f"{path} is damaged: weights, settings and card do not fit ({error})") from error
    return TrainedRestorer(net.to(device).eval(), card)
