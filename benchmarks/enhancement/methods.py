"""The methods that are compared: what the scan alone gives, and networks with and without their tether."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from superresolution.methods import CUBIC, TV_HESSIAN, by_cubic, by_tv_hessian
from superresolution.scene import Scene
from torch import Tensor

from iqt.restorer import Restorer, wiener_start
from iqt.restoring import restore, tethered
from mrcore.data.grid import Triple
from mrcore.data.volume import Volume
from mrcore.operators.separable import SeparableOp
from mrkit.enhancement.enhance import TRUST_SD
from ulfsim.cubes.anatomy import LEVEL_QUANTILE

WIENER, ONE_PASS = "Wiener", "regression, one pass"
MIRRORED, TETHERED = "regression, 8 mirrored", "regression, 8 mirrored, tethered"
NETWORKS = (ONE_PASS, MIRRORED, TETHERED)


@dataclass(frozen=True, eq=False)
class Compared:
    """A method by name; `run` takes the scene and the network, which `uses_network` says whether it needs."""

    name: str
    run: Callable[[Scene, Restorer], Volume]
    uses_network: bool = False


@dataclass(frozen=True, eq=False)
class _Input:
    """A scene as networks see it: bright tissue at 1."""

    operator: SeparableOp
    scan: Tensor
    noise_sd: float
    voxel_mm: Triple
    lattice_mm: float
    level: float


def _input(scene: Scene) -> _Input:
    operator = cast("SeparableOp", scene.data.views()[0].operator)
    on_scan = operator(scene.tissues.mask.float()) > 0.5
    level = float(scene.first.data[on_scan].quantile(LEVEL_QUANTILE))
    spacing = scene.first.grid.spacing_mm
    return _Input(
        operator, scene.first.data / level, scene.noise_sd / level, spacing, scene.lattice.spacing_mm[0], level
    )


def by_wiener(scene: Scene, net: Restorer) -> Volume:
    """Solve for the mean under the Gaussian prior that networks start from."""
    given = _input(scene)
    start = wiener_start(given.operator, given.scan[None], torch.tensor([given.noise_sd]), given.lattice_mm)[0]
    return scene.rendered(start.clamp_min(0) * given.level)


def _restored(scene: Scene, net: Restorer, n_mirrored: int, trust_sd: float | None) -> Volume:
    given = _input(scene)
    done = restore(net, given.operator, given.scan, given.noise_sd, given.voxel_mm, given.lattice_mm, n_mirrored)
    image = done.image
    if trust_sd is not None:
        image = tethered(image, given.operator, given.scan, given.noise_sd, trust_sd).clamp_min(0)
    return scene.rendered(image * given.level)


METHODS = (
    Compared(CUBIC, lambda scene, net: by_cubic(scene, 0).image),
    Compared(WIENER, by_wiener),
    Compared(TV_HESSIAN, lambda scene, net: by_tv_hessian(scene, 0).image),
    Compared(ONE_PASS, lambda scene, net: _restored(scene, net, 1, None), uses_network=True),
    Compared(MIRRORED, lambda scene, net: _restored(scene, net, 8, None), uses_network=True),
    Compared(TETHERED, lambda scene, net: _restored(scene, net, 8, TRUST_SD), uses_network=True),
)
