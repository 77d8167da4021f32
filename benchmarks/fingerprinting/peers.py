"""Time one peer at one task of fingerprinting; run by the interpreter that has the peer.

    python -m fingerprinting.peers TASK PEER INPUT.npz OUTPUT.npz [--repeats N]

Reads the task's arrays and writes `result` (what it computed, the last repeat), `cpu_seconds` of every repeat after
one that warms up, `peak_mib` and `version`. One thread throughout.

epg      flips (deg), tr_ms, ti_ms, t1_ms, t2_ms, states  ->  signals (atoms, frames)
nufft    k (N, 3) in cycles/voxel, images (K, X, Y, Z)    ->  samples (K, N)
normal   k, images, basis (frames, K); the samples are frame after frame, of equal length  ->  A^H A images
match    atoms (A, K), signals (V, K)                     ->  index (V,)
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from common.results import measured

Arrays = Mapping[str, np.ndarray]
Run = Callable[[], object]


def main() -> int:
    """Time the peer and write what it took and gave."""
    parser = argparse.ArgumentParser(description="Time one peer at one task.")
    parser.add_argument("task", choices=tuple(dict.fromkeys(task for task, _ in _PEERS)))
    parser.add_argument("peer")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.input) as file:
        arrays = {name: file[name] for name in file.files}
    run = _PEERS[options.task, options.peer](arrays)
    result = run()
    costs = []
    for _ in range(options.repeats):
        with measured() as cost:
            result = run()
        costs.append(cost)
    np.savez(
        options.output,
        result=np.asarray(result),
        cpu_seconds=[c.cpu_seconds for c in costs],
        peak_mib=max(c.peak_mib for c in costs),
        version=version(options.peer.partition("-")[0]),
    )
    return 0


def _epg(name: str) -> Callable[[Arrays], Run]:
    def build(arrays: Arrays) -> Run:
        mrf_sim = importlib.import_module(name).mrf_sim
        states, tr, ti = int(arrays["states"]), float(arrays["tr_ms"]), float(arrays["ti_ms"])
        return lambda: mrf_sim(arrays["flips"], tr, arrays["t1_ms"], arrays["t2_ms"], TI=ti, states=states)

    return build


def _sigpy_nufft(arrays: Arrays) -> Run:
    forward, _ = _sigpy(arrays)
    return lambda: forward(arrays["images"])


def _sigpy_normal(arrays: Arrays) -> Run:
    return _composed(arrays, *_sigpy(arrays))


def _sigpy(arrays: Arrays) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    import sigpy

    images = arrays["images"]
    used = [axis for axis, n in enumerate(images.shape[1:]) if n > 1]
    shape = tuple(images.shape[1 + axis] for axis in used)
    coordinates = np.ascontiguousarray(arrays["k"][:, used] * np.array(shape), dtype=np.float32)

    def forward(x: np.ndarray) -> np.ndarray:
        return sigpy.nufft(x.reshape(len(x), *shape), coordinates)

    def adjoint(y: np.ndarray) -> np.ndarray:
        return sigpy.nufft_adjoint(y, coordinates, oshape=(len(y), *shape)).reshape(images.shape)

    return forward, adjoint


def _kb_nufft(arrays: Arrays) -> Run:
    forward, _ = _kb(arrays)
    return lambda: forward(arrays["images"])


def _kb_normal(arrays: Arrays) -> Run:
    return _composed(arrays, *_kb(arrays))


def _kb(arrays: Arrays) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    import torchkbnufft

    images = arrays["images"]
    used = [axis for axis, n in enumerate(images.shape[1:]) if n > 1]
    shape = tuple(images.shape[1 + axis] for axis in used)
    radians = torch.from_numpy(np.ascontiguousarray(2 * np.pi * arrays["k"][:, used].T, dtype=np.float32))
    to_samples, to_images = torchkbnufft.KbNufft(shape), torchkbnufft.KbNufftAdjoint(shape)

    scale = 2 ** (len(used) / 2)  # "ortho" counts the points of a grid twice as fine along every axis

    def forward(x: np.ndarray) -> np.ndarray:
        stacked = torch.from_numpy(scale * x.reshape(1, len(x), *shape))
        return to_samples(stacked, radians, norm="ortho")[0].numpy()

    def adjoint(y: np.ndarray) -> np.ndarray:
        stacked = torch.from_numpy(scale * y[None])
        return to_images(stacked, radians, norm="ortho")[0].numpy().reshape(images.shape)

    return forward, adjoint


def _composed(
    arrays: Arrays, forward: Callable[[np.ndarray], np.ndarray], adjoint: Callable[[np.ndarray], np.ndarray]
) -> Run:
    """Return the normal operator as a user of a library without subspaces writes it."""
    images, basis = arrays["images"], arrays["basis"]
    by_sample = np.repeat(basis, len(arrays["k"]) // len(basis), axis=0).T

    def run() -> np.ndarray:
        y = np.einsum("kn,kn->n", by_sample, forward(images))
        return adjoint(by_sample.conj() * y)

    return run


def _bart(arrays: Arrays, *, toeplitz: bool) -> Run:
    import bartorch
    from bartorch.linop import NUFFT

    bartorch.set_num_threads(1)
    images, basis = arrays["images"], arrays["basis"]
    used = [axis for axis, n in enumerate(images.shape[1:]) if n > 1]
    shape = tuple(images.shape[1 + axis] for axis in used)
    grid_units = np.zeros((len(arrays["k"]), 3), dtype=np.float32)
    grid_units[:, : len(used)] = (arrays["k"][:, used] * np.array(shape))[:, ::-1]  # BART's first axis is our last
    trajectory = torch.from_numpy(grid_units.reshape(len(basis), 1, -1, 3))
    rows = torch.from_numpy(np.ascontiguousarray(basis.T).astype(np.complex64))
    operator = NUFFT(trajectory, image_shape=(len(images), *shape), basis=rows, toeplitz=toeplitz)
    x = torch.from_numpy(images.reshape(len(images), *shape))
    return lambda: operator.normal(x).numpy().reshape(images.shape)


def _torchsim_match(arrays: Arrays) -> Run:
    import torchsim

    atoms, signals = torch.from_numpy(arrays["atoms"]), torch.from_numpy(arrays["signals"])
    matcher = torchsim.DictionaryMatcher(dictionary=atoms)
    return lambda: matcher.match(signals).indices.reshape(len(signals)).numpy()


_PEERS: dict[tuple[str, str], Callable[[Arrays], Run]] = {
    ("epg", "blochsim"): _epg("blochsim"),
    ("epg", "torchsim"): _epg("torchsim"),
    ("nufft", "sigpy"): _sigpy_nufft,
    ("nufft", "torchkbnufft"): _kb_nufft,
    ("normal", "sigpy"): _sigpy_normal,
    ("normal", "torchkbnufft"): _kb_normal,
    ("normal", "bartorch"): lambda arrays: _bart(arrays, toeplitz=False),
    ("normal", "bartorch-toeplitz"): lambda arrays: _bart(arrays, toeplitz=True),
    ("match", "torchsim"): _torchsim_match,
}

if __name__ == "__main__":
    sys.exit(main())
