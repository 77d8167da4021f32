"""What the parts of fingerprinting cost beside their peers: EPG, NUFFT, normal operator, matching.

Every figure is CPU seconds on one thread, the least of some repeats, so that other work on the machine hardly shows.
Peers run in an interpreter of their own (`peers.py`) on the same arrays, and their results are compared
with ours or with the truth.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common.results import HERE, Row, measured, target
from common.sources import version_of
from common.store import Store
from torch import Tensor

from fingerprinting.gpu import estimated_rows
from mrcore.data.grid import Grid
from mrcore.operators.nufft import NufftOp
from mrcore.random import seeded
from mrcore.signals.epg import fisp_signals
from recon.dictionary.dictionary import build_dictionary, compress_dictionary, fisp_model, log_grid
from recon.dictionary.match_index import match_index
from recon.dictionary.matching import match
from recon.encoding.encoding import subspace_encoding
from recon.encoding.subspace import Subspace, subspace_of
from recon.encoding.toeplitz import toeplitz_normal
from recon.files.sequences import delics_sequence
from recon.trajectories.builders import spiral, spiral_projection
from recon.trajectories.trajectory import Trajectory

RANK, N_FRAMES = 5, 500
STEP = 0.0355  # of the grid of T1 and T2: 13,521 atoms
EPG = "Speed: FISP-MRF signals of 500 frames, one thread"
NUFFT = "Speed: NUFFT of 5 images, one thread"
NORMAL = "Speed: subspace normal operator, 5 coefficients, one coil, one thread"
MATCHING = "Speed: matching 5 coefficients, one thread"
TARGET = "(target)"
STATES = (20, 40, 80)
TOLERANCES = (5e-2, 3e-2, 1e-2, 1e-3)
N_CHECKED, N_VOXELS, SNR = 300, 20_000, 30.0
FASTER_EPG, FASTER_MATCHING, FASTER_NORMAL = 3.0, 10.0, 1.5


@dataclass(frozen=True)
class Timed:
    """What a run gave, its least CPU seconds of some repeats, peak memory of its process, version of what ran."""

    result: Tensor
    seconds: float
    peak_mib: float
    version: str = ""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the speed part."""
    group = parser.add_argument_group("speed beside peers")
    group.add_argument("--peers-python", help="interpreter that has blochsim, torchsim, bartorch, sigpy, torchkbnufft")
    group.add_argument("--speed-repeats", type=int, default=3, help="repeats of every timing (default: %(default)s)")
    group.add_argument("--speed-matrix", type=int, default=128, help="matrix of the volume (default: %(default)s)")


def speed_rows(options: argparse.Namespace, store: Store) -> tuple[list[Row], list[Row]]:
    """Return the rows and the targets of all parts; one that was finished with the same options is not timed again."""
    rows: list[Row] = []
    targets: list[Row] = []
    how = {"peers": options.peers_python, "repeats": options.speed_repeats, "matrix": options.speed_matrix}
    with _one_thread():
        for part in (_epg_part, _nufft_part, _normal_part, _match_part):
            more, asked = _kept({"speed": part.__name__, **how, "version": version_of(part)}, store, part, options)
            rows += more
            targets += asked
        own = next(row for row in rows if row["table"] == MATCHING)
        more, asked = estimated_rows(float(str(own["voxels/s"])), options.speed_repeats)
    return [*rows, *more], [*targets, *asked]


def _kept(
    key: Mapping[str, object],
    store: Store,
    part: Callable[[argparse.Namespace], tuple[list[Row], list[Row]]],
    options: argparse.Namespace,
) -> tuple[list[Row], list[Row]]:
    found = store.load(key)
    if found is None:
        rows, targets = part(options)
        found = [*rows, *({"table": TARGET, **entry} for entry in targets)]
        store.save(key, found)
    rows = [row for row in found if row["table"] != TARGET]
    return rows, [{k: v for k, v in row.items() if k != "table"} for row in found if row["table"] == TARGET]


def _epg_part(options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Speed at what accuracy: the error is that of the worst of some atoms, against all orders in float64."""
    sequence, grid = delics_sequence(), log_grid((0.1, 5.0), (0.01, 2.0), STEP)
    t1, t2 = grid.t1_s.float(), grid.t2_s.float()
    checked = torch.randperm(len(t1), generator=seeded(0, "atoms checked"))[:N_CHECKED]
    exact = fisp_signals(sequence, t1[checked].double(), t2[checked].double(), tolerance=0)
    # The peers have no echo time of their own: signals are compared up to one factor an atom.
    found: dict[str, list[tuple[float, float]]] = {}
    rows: list[Row] = []

    def add(what: str, setting: str, timed: Timed) -> None:
        error, rate = _worst(timed.result[checked], exact), len(t1) * N_FRAMES / timed.seconds / 1e6
        found.setdefault(what, []).append((error, rate))
        row = {"what": f"{what} {timed.version}".strip(), "setting": setting, "million atom.frames/s": rate}
        rows.append({"table": EPG, **row, "worst relative error": error, "peak MiB": timed.peak_mib})

    for tolerance in TOLERANCES:
        run = _bound(fisp_signals, sequence, t1, t2, tolerance=tolerance)
        add("mrkit", f"tolerance {tolerance:g}", _own(run, options.speed_repeats))
    arrays = {"flips": sequence.flip_deg.numpy(), "tr_ms": 12.0, "ti_ms": 20.0}
    arrays |= {"t1_ms": t1.numpy() * 1e3, "t2_ms": t2.numpy() * 1e3}
    for peer in ("blochsim", "torchsim"):
        for states in STATES:
            timed = _peer("epg", peer, arrays | {"states": states}, options)
            if timed is not None:
                add(peer, f"{states} states", timed)
    name = "times blochsim's speed in EPG, the least over its settings, at no larger worst error"
    return rows, [target(name, _least_gain(found), at_least=FASTER_EPG)]


def _least_gain(found: Mapping[str, list[tuple[float, float]]]) -> float:
    """Return our speed over the peer's, at the setting of theirs that favours them most; NaN without a peer."""
    gains = [
        max((rate for error, rate in found["mrkit"] if error <= peer_error), default=0.0) / peer_rate
        for peer_error, peer_rate in found.get("blochsim", [])
        if peer_error >= min(error for error, _ in found["mrkit"])
    ]
    return min(gains, default=math.nan)


def _nufft_part(options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    rows: list[Row] = []
    for trajectory in (_slice(), _volume(options.speed_matrix // 2)):
        images, arrays = _images(trajectory), _arrays(trajectory)
        op = NufftOp(trajectory.k_cyc_per_mm, trajectory.grid.shape, trajectory.grid.spacing_mm)
        own = _own(lambda op=op, images=images: op(images), options.speed_repeats)
        rows.append(_row(NUFFT, trajectory, "mrkit (finufft)", own, None))
        for peer in ("sigpy", "torchkbnufft"):
            timed = _peer("nufft", peer, arrays, options)
            if timed is not None:
                rows.append(_row(NUFFT, trajectory, peer, timed, own))
    return rows, []


def _normal_part(options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    rows: list[Row] = []
    targets: list[Row] = []
    for trajectory, peers in (
        (_slice(), ("bartorch", "bartorch-toeplitz", "sigpy", "torchkbnufft")),
        (_volume(options.speed_matrix), ("bartorch", "bartorch-toeplitz")),
    ):
        images, arrays = _images(trajectory), _arrays(trajectory)
        coil = torch.ones(1, *trajectory.grid.shape, dtype=torch.complex64)
        built = subspace_encoding(trajectory, _subspace(), coil, max_kernel_bytes=0)
        own = _own(lambda built=built, images=images: built.normal(images), options.speed_repeats)
        rows.append(_row(NORMAL, trajectory, "mrkit, fused", own, None))
        with measured() as building:
            toeplitz = toeplitz_normal(built.operator, built.weights)
        best = _own(lambda toeplitz=toeplitz, images=images: toeplitz(images), options.speed_repeats)
        rows.append(
            _row(NORMAL, trajectory, "mrkit, Toeplitz", best, own) | {"CPU seconds to build": building.cpu_seconds}
        )
        found = {peer: _peer("normal", peer, arrays, options) for peer in peers}
        rows += [_row(NORMAL, trajectory, peer, timed, own) for peer, timed in found.items() if timed is not None]
        bart = min((t.seconds for p, t in found.items() if t and p.startswith("bartorch")), default=math.nan)
        gain = bart / min(own.seconds, best.seconds)
        name = f"times bartorch's speed in the normal operator, {_size(trajectory)}"
        targets.append(target(name, gain, at_least=FASTER_NORMAL))
    return rows, targets


def _match_part(options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    sequence, grid = delics_sequence(), log_grid((0.1, 5.0), (0.01, 2.0), STEP)
    full = build_dictionary(grid, fisp_model(sequence, tolerance=1e-2), N_FRAMES)
    atoms = compress_dictionary(full, subspace_of(full.atoms, RANK)).atoms.float()
    generator = seeded(0, "voxels to match")
    clean = atoms[torch.randint(len(atoms), (N_VOXELS,), generator=generator)]
    phase = torch.exp(2j * math.pi * torch.rand(N_VOXELS, 1, generator=generator))
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=generator)
    signals = clean * phase + noise * clean.norm(dim=1, keepdim=True) / SNR / math.sqrt(RANK)
    unit = atoms / atoms.norm(dim=1, keepdim=True)
    index = match_index(atoms)

    def dense() -> Tensor:
        return torch.cat([(block @ unit.T.to(block.dtype)).abs().argmax(1) for block in signals.split(1024)])

    own = _own(lambda: match(index, signals).atom, options.speed_repeats)
    ways = {"mrkit": own, "one dense product and its largest value (as mrpro does)": _own(dense, 1)}
    found = _peer("match", "torchsim", {"atoms": atoms.numpy(), "signals": signals.numpy()}, options)
    if found is not None:
        ways["torchsim"] = found
    score = torch.stack([(signals * unit[way.result]).sum(1).abs() for way in ways.values()])
    rows: list[Row] = [
        {
            "table": MATCHING,
            "what": f"{name} {way.version}".strip(),
            "atoms": len(atoms),
            "voxels/s": N_VOXELS / way.seconds,
            "peak MiB": way.peak_mib,
            "voxels with a worse match than the best way": int((score[i] < score.max(0).values * (1 - 1e-6)).sum()),
        }
        for i, (name, way) in enumerate(ways.items())
    ]
    fastest = min(way.seconds for name, way in ways.items() if name != "mrkit")
    missed = rows[0]["voxels with a worse match than the best way"]
    return rows, [
        target("times the speed of the fastest peer in matching", fastest / own.seconds, at_least=FASTER_MATCHING),
        target("voxels matched worse than by any peer", float(str(missed)), at_most=0),
    ]


def _slice() -> Trajectory:
    return spiral(Grid((192, 192, 1), np.eye(4)), N_FRAMES, 48)


def _volume(matrix: int) -> Trajectory:
    """Return about four samples a voxel."""
    arms_per_frame = 8
    n = 4 * matrix**3 // (N_FRAMES * arms_per_frame)
    return spiral_projection(Grid((matrix, matrix, matrix), np.eye(4)), N_FRAMES, 32, arms_per_frame, n)


def _subspace() -> Subspace:
    basis = torch.linalg.qr(torch.randn(N_FRAMES, RANK, generator=seeded(0, "basis"))).Q
    return Subspace(basis, torch.full((N_FRAMES,), 1 / N_FRAMES))


def _images(trajectory: Trajectory) -> Tensor:
    return torch.randn(RANK, *trajectory.grid.shape, dtype=torch.complex64, generator=seeded(0, "images"))


def _arrays(trajectory: Trajectory) -> dict[str, object]:
    """Return what peers need; voxels are 1 mm, so that cycles/mm are cycles/voxel."""
    k, images = trajectory.k_cyc_per_mm.float().numpy(), _images(trajectory).numpy()
    return {"k": k, "images": images, "basis": _subspace().basis.numpy()}


def _size(trajectory: Trajectory) -> str:
    return f"{' x '.join(map(str, trajectory.grid.shape))}, {trajectory.n_samples / 1e6:.2g} million samples"


def _row(table: str, trajectory: Trajectory, what: str, timed: Timed, own: Timed | None) -> dict[str, object]:
    difference = math.nan if own is None else float((timed.result - own.result).norm() / own.result.norm())
    row = {"table": table, "image": _size(trajectory), "what": f"{what} {timed.version}".strip()}
    return row | {"CPU seconds": timed.seconds, "peak MiB": timed.peak_mib, "relative difference": difference}


def _own(run: Callable[[], Tensor], n_repeats: int) -> Timed:
    result = run()
    costs = []
    for _ in range(n_repeats):
        with measured() as cost:
            result = run()
        costs.append(cost)
    return Timed(result, min(c.cpu_seconds for c in costs), max(c.peak_mib for c in costs))


def _peer(task: str, peer: str, arrays: Mapping[str, object], options: argparse.Namespace) -> Timed | None:
    """Time a peer in its own interpreter; None where there is none."""
    if options.peers_python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "given.npz", Path(folder) / "taken.npz"
        np.savez(given, **arrays)
        command = [options.peers_python, "-W", "ignore", "-m", "fingerprinting.peers", task, peer]
        command += [str(given), str(taken), "--repeats", str(options.speed_repeats)]
        subprocess.run(command, check=True, cwd=HERE, env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        with np.load(taken) as file:
            result, seconds = torch.from_numpy(file["result"]), float(file["cpu_seconds"].min())
            return Timed(result, seconds, float(file["peak_mib"]), str(file["version"]))


def _worst(signals: Tensor, exact: Tensor) -> float:
    """Return the largest relative error of an atom, up to a complex factor that is the same for all its frames."""
    values, truth = signals.to(torch.complex128), exact.to(torch.complex128)
    factor = (values.conj() * truth).sum(1, keepdim=True) / values.abs().square().sum(1, keepdim=True)
    return float(((factor * values - truth).norm(dim=1) / truth.norm(dim=1)).max())


def _bound(function: Callable[..., Tensor], *arguments: object, tolerance: float) -> Callable[[], Tensor]:
    return lambda: function(*arguments, tolerance=tolerance)


@contextmanager
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
