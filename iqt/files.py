"""Restoration networks on disk: safetensors with settings and card inside, and the card as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from iqt.model.unet import UNetSettings
from iqt.restorer import Restorer
from mrcore.errors import BadInputError
from mrcore.io.atomic import atomic_write, refuse_existing
from mrcore.io.tensors import save_tensors

_FORMAT, _VERSION = "mrkit restorer", "1"


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
    if path.suffix != ".safetensors":
        raise BadInputError(f"a network is saved as .safetensors, got '{path.name}'")
    card_path = path.with_suffix(".json")
    refuse_existing([path, card_path], force=force)
    settings, card = asdict(trained.net.net.settings), asdict(trained.card)
    header = {"format": _FORMAT, "version": _VERSION, "settings": json.dumps(settings), "card": json.dumps(card)}
    save_tensors({name: value.to(dtype) for name, value in trained.net.state_dict().items()}, path, header, force=force)
    with atomic_write(card_path, force=force) as temporary:
        content = {"Format": _FORMAT, "Version": _VERSION, "Settings": settings, "Card": card}
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def load_restorer(path: str | Path, device: torch.device | str = "cpu") -> TrainedRestorer:
    """Load what `save_restorer` wrote, in float32, on `device`.

    Raises:
        BadInputError: no such file, a file of another kind or version, or weights that do not fit their settings.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; a network is made by `mrkit train-iqt`")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise BadInputError(f"{path} is not a safetensors file, or is damaged ({error})") from error
    if header.get("format") != _FORMAT or header.get("version") != _VERSION:
        raise BadInputError(
            f"{path} holds '{header.get('format', 'tensors of unknown kind')}', version "
            f"{header.get('version', 'none')}; expected '{_FORMAT}', version {_VERSION}"
        )
    try:
        net = Restorer(UNetSettings(**json.loads(header["settings"])))
        net.load_state_dict(weights)
        card = RestorerCard(**json.loads(header["card"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInputError(f"{path} is damaged: weights, settings and card do not fit ({error})") from error
    return TrainedRestorer(net.to(device).eval(), card)
