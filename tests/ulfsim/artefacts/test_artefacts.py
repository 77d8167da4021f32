import json
from dataclasses import fields

import pytest
import torch
from operators import OPERATORS, grid, numbers

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.errors import BadInputError
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts, disturbed_operator, from_json, to_json
from ulfsim.artefacts.encoding import AxisRoles
from ulfsim.artefacts.fields import B0Distortion, ConcomitantWarp, ReceiveBias
from ulfsim.artefacts.interference import Spike, Spikes, Zipper
from ulfsim.artefacts.kspace import IntensityDrift, NyquistGhost, ShotMotion, ShotPose, Wrap
from ulfsim.plan import plan_scan

VOXEL = (5.0, 5.0, 10.0)
PLAN = plan_scan(
    grid((16, 20, 18), (4.0, 4.0, 4.0)), Acquisition(0.064, VOXEL, PulseSequence("T1w"), psf=gaussian_psf(VOXEL))
)
ALL = Artefacts(
    bias=ReceiveBias(1.7, tuple(range(9))),
    b0=B0Distortion((0.1, 0.2, 1 / 3, -4, 5, 6, 7, 8)),
    concomitant=ConcomitantWarp("S", (1, 2, 3)),
    motion=ShotMotion((ShotPose(), ShotPose((0.1, 0.2, 0.3), (1, 2, 3))), interleaved=False),
    ghost=NyquistGhost(12.5, -0.1),
    drift=IntensityDrift(0.2, over_slices=True, n_passes=2),
    wrap=Wrap(0.7),
    zipper=Zipper((1e3, -2.5e3), 4.0, 1.5, seed=7),
    spikes=Spikes((Spike((0.1, 0.2, -0.3), 1.5, 90.0), Spike((0, 0, 0.5), 1.0))),
    encoding=AxisRoles(1, 2, 333.0),
)


def test_nothing_is_on_by_default():
    assert NO_ARTEFACTS.names == ()
    x = numbers(16, 20, 18).float()
    scan = disturbed_operator(PLAN, NO_ARTEFACTS)(x)
    assert torch.equal(scan.real, PLAN.operator(x))
    assert float(scan.imag.abs().max()) == 0


def test_names_are_those_present_in_order():
    assert ALL.names == tuple(f.name for f in fields(Artefacts))[:-1]
    assert Artefacts(wrap=Wrap(0.9), bias=ReceiveBias(1.5)).names == ("bias", "wrap")


@pytest.mark.parametrize(
    "artefacts", [ALL, NO_ARTEFACTS, Artefacts(encoding=AxisRoles(2, 0)), Artefacts(wrap=Wrap(0.9))]
)
def test_json_gives_back_the_same(artefacts):
    assert from_json(json.loads(json.dumps(to_json(artefacts)))) == artefacts


def test_json_holds_only_what_is_there():
    assert to_json(NO_ARTEFACTS) == {}
    assert sorted(to_json(Artefacts(wrap=Wrap(0.9)))) == ["encoding", "wrap"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fold": {}}, "unknown artefacts"),
        ({"wrap": {}}, "not complete"),
        ({"wrap": {"fov_fraction": 0.5, "axis": 1}}, "not complete or not of this version"),
        ({"wrap": 3}, "not complete"),
        ({"motion": {"poses": [{}, {}]}}, "not complete"),
        ({"wrap": {"fov_fraction": 3.0}}, "between 0.1 and 1"),
    ],
)
def test_json_that_is_not_ours_is_refused(values, message):
    with pytest.raises(BadInputError, match=message):
        from_json(values)


@pytest.mark.parametrize("name", [f.name for f in fields(Artefacts) if f.name not in ("encoding", "zipper", "spikes")])
def test_each_artefact_changes_the_scan_and_leaves_it_finite(name):
    x = numbers(16, 20, 18).float().abs()
    strong = {"b0": B0Distortion((0, 0, 0, 0, 0, 0, 2e3, 0)), "concomitant": ConcomitantWarp(isocentre_mm=(0, 200, 0))}
    artefacts = Artefacts(**{name: strong.get(name, getattr(ALL, name))})
    scan, clean = disturbed_operator(PLAN, artefacts)(x), PLAN.operator(x)
    assert scan.dtype == torch.complex64
    assert bool(scan.isfinite().all())
    assert float((scan - clean).abs().max()) > 0.01 * float(clean.abs().max())


def test_object_can_be_found_again_from_a_disturbed_scan():
    # The gradient of the misfit is the adjoint: at the truth it vanishes.
    op = OPERATORS["disturbed scan"]()
    truth = numbers(*op.shape_in)
    x = truth.clone().requires_grad_()
    (op(x) - op(truth)).abs().square().sum().backward()
    assert float(x.grad.abs().max()) == 0
