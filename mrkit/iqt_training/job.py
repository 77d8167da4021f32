"""Train a restoration network from a training file to a network file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from iqt.files import RestorerCard, TrainedRestorer, save_restorer
from iqt.restorer import Restorer, conditions_of, regression_loss, wiener_start, without_margin
from mrcore.io.atomic import refuse_existing
from mrcore.random import seeded
from mrcore.scan_cubes import ScanCubes
from mrcore.training import train
from mrkit.devices import device_of
from mrkit.iqt_training.anatomies import Anatomies, read_anatomies
from mrkit.iqt_training.config import TrainingConfig, read_config
from ulfsim.cubes.anatomy import CubeAnatomy
from ulfsim.cubes.cubes import NARROW, CubeSettings, draw_cubes

_TESTS = (50.0, 20.0, 10.0)


@dataclass(frozen=True)
class IqtTrainJob:
    """What `mrkit train-iqt` is asked for.

    Attributes:
        config: the training file.
        resume: go on from the checkpoint, if there is one.
        force: replace results that exist.
        device: where to train.
    """

    config: Path
    resume: bool = False
    force: bool = False
    device: str = "cpu"


def train_iqt(job: IqtTrainJob) -> Path:
    """Read the heads, train, validate on those held out, and write the network with its card; return its path.

    Raises:
        BadInputError: a training file or heads that cannot be used, an output that exists.
    """
    config, device = read_config(job.config), device_of(job.device)
    checkpoint = config.out.with_suffix(".checkpoint")
    kept = () if job.resume else (checkpoint,)
    refuse_existing([config.out, config.out.with_suffix(".json"), *kept], force=job.force or job.resume)
    if not job.resume:
        checkpoint.unlink(missing_ok=True)
    heads = read_anatomies(config, config.out.with_suffix(".heads"))
    torch.manual_seed(config.training.seed)
    net = Restorer(config.network).to(device)
    trained = train(
        net,
        regression_loss,
        lambda generator: draw_cubes(heads.train, config.cubes, generator).to(device),
        replace(config.training, data=_identity(heads)),
        checkpoint,
        resume=job.resume,
    )
    model = trained.model.cpu()
    gains = {
        f"{head.name} SNR {snr:g}": gain_db(model, [head], config.cubes, snr, config.n_test_cubes)
        for head in heads.held_out
        for snr in _TESTS
    }
    card = _card(config, heads, len(trained.history), gains)
    return save_restorer(TrainedRestorer(model, card), config.out, force=job.force or job.resume)


def gain_db(net: Restorer, heads: Sequence[CubeAnatomy], cubes: CubeSettings, wm_snr: float, n: int) -> float:
    """Return the PSNR in the brain over that of the Wiener start: the mean of cubes at one SNR, always the same."""
    ranges = replace(NARROW, wm_snr=(wm_snr, wm_snr))
    alone = replace(cubes, n_cubes=1, misstated=0.0, ranges=(ranges,))
    gains = []
    for number in range(n):
        pair = draw_cubes(heads, alone, seeded(0, f"mrkit.iqt_training:{number}"))
        gains.append(_gain_db(net, pair))
    return sum(gains) / len(gains)


def _gain_db(net: Restorer, pair: ScanCubes) -> float:
    start = wiener_start(pair.operator, pair.scan, pair.noise_sd, pair.lattice_mm)
    with torch.no_grad():
        restored = net(start, conditions_of(pair.noise_sd, pair.voxel_mm))
    inside = without_margin(pair.brain, pair.lattice_mm)

    def mse(image: Tensor) -> float:
        error = without_margin(image.clamp_min(0) - pair.truth, pair.lattice_mm)[inside]
        return max(float(error.square().mean()), 1e-9)

    return 10 * math.log10(mse(start) / mse(restored))


def _identity(heads: Anatomies) -> str:
    return " ".join(f"{head.name}:{heads.sha256[head.name][:8]}:{head.weight:g}" for head in heads.train)


def _card(config: TrainingConfig, heads: Anatomies, n_steps: int, gains: dict[str, float]) -> RestorerCard:
    ranges = config.cubes.ranges
    return RestorerCard(
        sources=tuple(
            {"name": head.name, "sha256": heads.sha256[head.name], "licence": _licence(head.name, config)}
            for head in heads.train
        ),
        held_out=tuple(head.name for head in heads.held_out),
        voxel_mm=(
            (min(r.in_plane_mm[0] for r in ranges), max(r.in_plane_mm[1] for r in ranges)),
            (min(r.slice_mm[0] for r in ranges), max(r.slice_mm[1] for r in ranges)),
        ),
        wm_snr=(min(r.wm_snr[0] for r in ranges), max(r.wm_snr[1] for r in ranges)),
        n_steps=n_steps,
        seed=config.training.seed,
        gains_db={name: round(value, 3) for name, value in gains.items()},
    )


def _licence(name: str, config: TrainingConfig) -> str:
    return next((text for start, text in config.licences.items() if name.startswith(start)), "not stated")
