"""What a simulation costs, beside TorchIO, MONAI and ULF-Synth; the contrast solve; the same bytes everywhere."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.results import HERE, Row, measured, target

from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import predict
from mrcore.noise import complex_noise
from mrcore.random import seeded
from ulfsim.calibration.gains import calibrate
from ulfsim.plan import plan_scan
from ulfsim.protocols.presets import PRESETS
from ulfsim.simulation import calibrated_simulation, simulate
from ulfsim.source.source import source_of

TABLE = "Speed: one head of 256 x 256 x 256 at 1 mm to 1.6 x 1.6 x 5 mm, in memory, medians"
PRESET = PRESETS["hyperfine-t1w"]
COLD = "mrkit, calibrated, from image and tissue maps"
WARM = "mrkit, calibrated, from a prepared source"
SCAN = "mrkit, one more scan of a calibrated source"
BARE = "mrkit, blur + resample + Rician noise (what TorchIO and MONAI do)"
LIMIT_S, LIMIT_MIB, FASTER = 0.3, 2048.0, 4.0


@dataclass(frozen=True)
class Peers:
    """Where the peers are: an interpreter that has TorchIO and MONAI, and the file of ULF-Synth; None where not."""

    python: str | None
    ulf_synth: Path | None


def speed(image: Path, volume: Volume, tissues: TissueMap, peers: Peers, n_repeats: int, n_threads: int) -> list[Row]:
    """Time our ways and the peers, one after the other in the same call."""
    source = source_of(volume, tissues)
    plan = plan_scan(volume.grid, PRESET.acquisition)
    calibration = calibrate(source, plan, PRESET.snr)
    noise_sd = calibration.noise_sd

    def bare() -> object:
        clean = predict(plan_scan(volume.grid, PRESET.acquisition).operator, volume.data)
        return (clean + complex_noise(clean.shape, noise_sd, seeded(0, "bare"))).abs()

    ways: Mapping[str, Callable[[], object]] = {
        BARE: bare,
        COLD: lambda: calibrated_simulation(source_of(volume, tissues), PRESET, 0),
        WARM: lambda: calibrated_simulation(source, PRESET, 0),
        SCAN: lambda: simulate(source, PRESET.acquisition, calibration.gains, 0),
    }
    rows = [_own(name, run, n_repeats) for name, run in ways.items()]
    theirs = [_peer(name, image, peers, n_repeats, n_threads) for name in ("torchio", "monai", "ulf-synth")]
    return [*rows, *(row for row in theirs if row is not None)]


def speed_targets(rows: list[Row]) -> list[Row]:
    """Return the targets of speed; a peer that did not run leaves its target unmet."""
    seconds = {str(row["what"]): float(str(row["seconds"])) for row in rows}
    peak = {str(row["what"]): float(str(row["peak MiB"])) for row in rows}
    blurring = [s for name, s in seconds.items() if name.startswith(("torchio", "monai"))]
    calibrated = [s for name, s in seconds.items() if name.startswith("ulf-synth")]
    nan = float("nan")
    return [
        target("seconds, calibrated, tissue maps given", seconds[COLD], at_most=LIMIT_S),
        target("peak MiB, calibrated, tissue maps given", peak[COLD], at_most=LIMIT_MIB),
        target(
            "times faster than the faster of TorchIO and MONAI, comparable work (blur, resample, noise)",
            min(blurring) / seconds[BARE] if blurring else nan,
            at_least=FASTER,
        ),
        target(
            "times faster than ULF-Synth, contrast included",
            calibrated[0] / seconds[COLD] if calibrated else nan,
            at_least=FASTER,
        ),
    ]


def _own(name: str, run: Callable[[], object], n_repeats: int) -> Row:
    run()
    costs = []
    for _ in range(n_repeats):
        with measured() as cost:
            run()
        costs.append(cost)
    return {
        "table": TABLE,
        "what": name,
        "seconds": statistics.median(c.seconds for c in costs),
        "CPU seconds": statistics.median(c.cpu_seconds for c in costs),
        "peak MiB": max(c.peak_mib for c in costs),
        "repeats": n_repeats,
    }


def _peer(name: str, image: Path, peers: Peers, n_repeats: int, n_threads: int) -> Row | None:
    """Time a peer in its own interpreter; None where it is not at hand."""
    if peers.python is None or (name == "ulf-synth" and peers.ulf_synth is None):
        return None
    # ULF-Synth takes half a minute a scan.
    repeats = 1 if name == "ulf-synth" else n_repeats
    command = [peers.python, "-W", "ignore", str(HERE / "simulation" / "peers.py"), name, str(image)]
    command += ["--repeats", str(repeats), "--threads", str(n_threads)]
    if peers.ulf_synth is not None:
        command += ["--ulf-synth", str(peers.ulf_synth)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "table": TABLE,
        "what": f"{name} {found['version']}: {found['does']}",
        "seconds": statistics.median(found["seconds"]),
        "peak MiB": found["peak_mib"],
        "repeats": repeats,
    }


_DIGEST = """
import hashlib, sys
from mrcore.phantom import digital_head, head_grid
from ulfsim.protocols.presets import PRESETS
from ulfsim.simulation import calibrated_simulation
from ulfsim.source.source import source_of
head = digital_head(head_grid(32, 96.0), texture=0.03)
made = calibrated_simulation(source_of(head.image, head.tissues), PRESETS["hyperfine-t1w"], 7)[1]
sys.stdout.write(hashlib.sha256(made.scan.data.numpy().tobytes()).hexdigest())
"""


_DATASET = """
import hashlib, sys, torch
from torch.utils.data import DataLoader
from mrcore.phantom import digital_head, head_grid
from ulfsim.dataset import SimulatedPairs
from ulfsim.protocols.ranges import SWOOP_LIKE
from ulfsim.source.source import source_of
torch.set_num_threads(1)
head = digital_head(head_grid(32, 96.0), texture=0.03)
pairs = SimulatedPairs([source_of(head.image, head.tissues)], SWOOP_LIKE, seed=7, n_per_source=8)
digest = hashlib.sha256()
for pair in DataLoader(pairs, batch_size=None, num_workers=int(sys.argv[1])):
    digest.update(pair.scan.numpy().tobytes())
sys.stdout.write(digest.hexdigest())
"""


def same_bytes() -> list[Row]:
    """Return the targets that the same seed gives the same bytes in two processes, and with 1 or 8 workers."""

    def run(code: str, *arguments: str) -> str:
        command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return [
        target("different scans of two processes, same seed", len({run(_DIGEST) for _ in range(2)}), at_most=1),
        target("different training pairs of 1 and 8 workers", len({run(_DATASET, n) for n in "18"}), at_most=1),
    ]
