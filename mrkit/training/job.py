"""Train a denoiser from files to a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from mrcore.denoisers.files import Denoiser, ModelCard, TrainingSource, save_denoiser
from mrcore.denoisers.patches import (
    Anatomy,
    PatchSettings,
    denoising_loss,
    draw_patches,
    image_anatomy,
    label_anatomy,
    maps_anatomy,
)
from mrcore.denoisers.unet import DenoiserNet, DenoiserSettings
from mrcore.errors import BadInputError, MrkitError
from mrcore.io.atomic import refuse_existing
from mrcore.io.file_content import IMAGE_SUFFIXES, refuse_unfetched
from mrcore.io.sidecar import file_sha256
from mrcore.io.volumes import load_volume
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.training import TrainSettings, train
from mrkit.files.images import read_scan
from mrkit.files.provenance import distinct_names

_log = logging.getLogger(__name__)

_NOT_STATED = "not stated"
SETTINGS = {2: DenoiserSettings(2, (64, 96, 128), 2), 3: DenoiserSettings(3, (48, 64, 64), 2)}
PATCHES = {2: PatchSettings(2, 64, 16), 3: PatchSettings(3, 32, 4)}


@dataclass(frozen=True)
class TrainJob:
    """What `mrkit train-denoiser` is asked for.

    Attributes:
        out: the .safetensors to write; the checkpoint lies beside it as .checkpoint.
        images: weighted images, or folders of them.
        maps: .npz files with t1_ms, t2_ms and pd (or pd_real and pd_imag), (X, Y, Z) or slices first, or folders.
        labels: label maps, or folders.
        n_dims: 2 or 3.
        n_steps: length of the training.
        n_heads: digital heads in addition.
        bf16: compute in bfloat16, faster where the processor has it.
        seed: of weights, patches and noise.
        resume: go on from the checkpoint, if there is one.
        force: replace results that exist.
    """

    out: Path
    images: tuple[Path, ...] = ()
    maps: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    n_dims: int = 3
    n_steps: int = 20_000
    n_heads: int = 0
    bf16: bool = False
    seed: int = 0
    resume: bool = False
    force: bool = False

    @property
    def checkpoint(self) -> Path:
        """Where the state of the training is kept."""
        return self.out.with_suffix(".checkpoint")


def train_denoiser(job: TrainJob) -> tuple[Path, tuple[str, ...]]:
    """Read the images, train, and write the denoiser with its card; return its path, and why images were left out.

    A file that was named must be usable; one in a folder is left out where it is not.

    Raises:
        BadInputError: files that cannot be used, nothing to train on, an output that exists.
    """
    if job.out.suffix != ".safetensors":
        raise BadInputError(f"a denoiser is saved as .safetensors, got '{job.out.name}'")
    kept = () if job.resume else (job.checkpoint,)
    refuse_existing([job.out, job.out.with_suffix(".json"), *kept], force=job.force)
    if not job.resume:
        job.checkpoint.unlink(missing_ok=True)
    anatomies, sources, left_out = _anatomies(job)
    patches = PATCHES[job.n_dims]
    net = DenoiserNet(SETTINGS[job.n_dims], seeded(job.seed, "mrkit.train_denoiser:weights"))
    data = " ".join([*(source.sha256[:12] for source in sources), f"heads={job.n_heads}"])
    settings = TrainSettings(job.n_steps, bf16=job.bf16, seed=job.seed, data=data)
    trained = train(
        net,
        denoising_loss,
        lambda generator: draw_patches(anatomies, patches, generator),
        settings,
        job.checkpoint,
        resume=job.resume,
    )
    card = ModelCard(sources, patches.noise_range, job.seed, len(trained.history))
    return save_denoiser(Denoiser(trained.model, card), job.out, force=job.force), left_out


def _anatomies(job: TrainJob) -> tuple[list[Anatomy], tuple[TrainingSource, ...], tuple[str, ...]]:
    found, sources, left_out = [], [], []
    given = (
        (job.images, _files(job.images, IMAGE_SUFFIXES), _image),
        (job.maps, _files(job.maps, (".npz",)), _maps),
        (job.labels, _files(job.labels, IMAGE_SUFFIXES), _labels),
    )
    names = distinct_names([path for _, paths, _ in given for path in paths])
    for named, paths, read in given:
        for path in paths:
            try:
                anatomy, licence = read(path, names[path])
            except MrkitError as error:
                if path in named:
                    raise
                left_out.append(f"{names[path]} was left out: {error}")
                _log.warning(left_out[-1])
                continue
            found.append(anatomy)
            sources.append(TrainingSource(names[path], file_sha256(path), licence))
    if left_out and not found:
        raise BadInputError(f"none of {len(left_out)} files can be used to train on: {left_out[0]}")
    for number in range(job.n_heads):
        head = digital_head(head_grid(192, 192.0), seed=number, skull=bool(number % 2))
        found.append(maps_anatomy(f"digital head {number}", head.t1_s, head.t2_s, head.pd, (0, 1, 2)))
    if not found:
        raise BadInputError("nothing to train on; give --images, --maps or --labels")
    return found, tuple(sources), tuple(left_out)


def _image(path: Path, name: str) -> tuple[Anatomy, str]:
    volume = read_scan(path)
    return image_anatomy(name, volume.data, volume.grid), str(volume.meta.get("License", _NOT_STATED))


def _labels(path: Path, name: str) -> tuple[Anatomy, str]:
    volume = load_volume(path)
    return label_anatomy(name, volume.data, volume.grid), str(volume.meta.get("License", _NOT_STATED))


def _maps(path: Path, name: str) -> tuple[Anatomy, str]:
    """Read relaxation maps; slices that come first are taken one by one."""
    refuse_unfetched(path)
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        pd = arrays["pd"] if "pd" in arrays else np.hypot(arrays["pd_real"], arrays["pd_imag"], dtype=np.float32)
        maps = [torch.from_numpy(np.abs(m).astype(np.float32)) for m in (arrays["t1_ms"], arrays["t2_ms"], pd)]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise BadInputError(f"{path} holds no maps: t1_ms, t2_ms and pd, or pd_real and pd_imag ({error})") from error
    if len({m.shape for m in maps}) != 1 or maps[0].ndim != 3:
        raise BadInputError(f"{path}: T1, T2 and PD need one shape of three axes, got {[tuple(m.shape) for m in maps]}")
    t1_ms, t2_ms, density = maps
    return maps_anatomy(name, t1_ms / 1000, t2_ms / 1000, density, planes=(0,)), _NOT_STATED


def _files(given: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files, and those in the folders, in order of name."""
    found: list[Path] = []
    for path in given:
        inside = _in_folder(path, suffixes) if path.is_dir() else [path]
        if not inside:
            raise BadInputError(f"{path} holds no file that ends in {', '.join(suffixes)}")
        found += inside
    return found


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.endswith(suffixes) and not p.name.startswith("."))
