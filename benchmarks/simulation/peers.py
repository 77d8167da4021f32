"""Time one peer's simulation of a low-field scan; run by the interpreter that has the peer.

    python benchmarks/simulation/peers.py torchio|monai|ulf-synth IMAGE [--repeats N] [--ulf-synth FILE]

Prints one line of JSON: seconds of each repeat after one that warms up, peak memory, version, what was done. TorchIO
and MONAI blur, resample to 1.6 x 1.6 x 5 mm and add noise, on an image that is already in memory. ULF-Synth's function
reads the file itself and keeps the grid of its input; the time that nibabel takes to read the same file is taken off.
Its file is `simulate_ulf.py` of the public repository toufiqmusah/ULF-Synth.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

VOXEL_MM = (1.6, 1.6, 5.0)
_SIGMA_MM = tuple(v / math.sqrt(8 * math.log(2)) for v in VOXEL_MM)  # a FWHM of one voxel
_NOISE_SD = 2.0

Peer = tuple[Callable[[], object], str, str]


def main() -> int:
    """Time the peer and print what it took."""
    parser = argparse.ArgumentParser(description="Time one peer's simulation.")
    parser.add_argument("peer", choices=tuple(_PEERS))
    parser.add_argument("image", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ulf-synth", type=Path, default=None)
    options = parser.parse_args()
    run, what, release = _PEERS[options.peer](options)
    run()
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    reading = _reading_seconds(options.image) if options.peer == "ulf-synth" else 0.0
    print(
        json.dumps(
            {
                "seconds": [s - reading for s in seconds],
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "does": what,
                "version": release,
            }
        )
    )
    return 0


def _torchio(options: argparse.Namespace) -> Peer:
    import torch
    import torchio

    torch.set_num_threads(options.threads)
    subject = torchio.Subject(mri=torchio.ScalarImage(options.image))
    subject.load()
    scan = torchio.Compose(
        [
            torchio.Blur(std=_SIGMA_MM),
            torchio.Resample(VOXEL_MM, image_interpolation="linear"),
            torchio.Noise(mean=0.0, std=_NOISE_SD, seed=0),
        ]
    )
    return lambda: scan(subject), "blur, resample, Gaussian noise", version("torchio")


def _monai(options: argparse.Namespace) -> Peer:
    import torch
    from monai.transforms import Compose, EnsureChannelFirst, GaussianSmooth, LoadImage, RandRicianNoise, Spacing

    torch.set_num_threads(options.threads)
    image = EnsureChannelFirst()(LoadImage(image_only=True)(options.image))
    spacing = [float(s) for s in image.pixdim]
    scan = Compose(
        [
            GaussianSmooth(sigma=[s / v for s, v in zip(_SIGMA_MM, spacing, strict=True)]),
            Spacing(pixdim=VOXEL_MM, mode="bilinear"),
            RandRicianNoise(prob=1.0, mean=0.0, std=_NOISE_SD, sample_std=False),
        ]
    )
    return lambda: scan(image), "smooth, resample, Rician noise", version("monai")


def _ulf_synth(options: argparse.Namespace) -> Peer:
    if options.ulf_synth is None:
        raise SystemExit("ulf-synth needs --ulf-synth simulate_ulf.py (of github.com/toufiqmusah/ULF-Synth)")
    spec = importlib.util.spec_from_file_location("ulf_synth", options.ulf_synth)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return (
        lambda: module.simulate_ulf(str(options.image), seed=0),
        "field scaling, T2* decay, noise, k-space crop and undersampling, on the input's grid",
        "main",
    )


def _reading_seconds(image: Path) -> float:
    import nibabel

    start = time.perf_counter()
    nibabel.load(image).get_fdata()
    return time.perf_counter() - start


_PEERS: dict[str, Callable[[argparse.Namespace], Peer]] = {
    "torchio": _torchio,
    "monai": _monai,
    "ulf-synth": _ulf_synth,
}

if __name__ == "__main__":
    sys.exit(main())
