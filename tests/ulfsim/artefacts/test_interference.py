import math

import pytest
import torch
from operators import grid

from mrcore.errors import BadInputError
from mrcore.operators.fourier import FourierOp
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts, interference_of
from ulfsim.artefacts.encoding import AxisRoles
from ulfsim.artefacts.interference import Spike, Spikes, Zipper

SCAN = grid((30, 24, 10), (2.0, 2.0, 5.0))
C128 = torch.complex128


def image(artefacts: Artefacts) -> torch.Tensor:
    found = interference_of(artefacts, SCAN, torch.float64, "cpu")
    assert found is not None
    assert found.dtype == C128
    return found


@pytest.mark.parametrize("readout", [0, 1])
@pytest.mark.parametrize("voxels", [-9, 0, 7])
def test_zipper_lies_in_the_column_of_its_frequency_with_its_amplitude(readout, voxels):
    zipper = Zipper((voxels * 250.0,), 3.0)
    scan = image(Artefacts(zipper=zipper, encoding=AxisRoles(readout, 1 - readout, 250.0))).movedim(readout, 0)
    column = scan.shape[0] // 2 + voxels
    assert float(scan[column].abs().square().mean().sqrt()) == pytest.approx(3.0, rel=1e-9)
    scan[column] = 0
    assert float(scan.abs().max()) < 1e-9


def test_zipper_is_as_incoherent_along_the_line_as_noise():
    line = image(Artefacts(zipper=Zipper((0.0,), 1.0), encoding=AxisRoles(0, 1)))[15]
    assert 0.4 < float(line.abs().std()) < 0.6  # Rayleigh of mean square 1: 0.463
    neighbours = (line[1:] * line[:-1].conj()).mean().abs()
    assert float(neighbours) < 0.2


def test_frequency_that_jitters_widens_the_line_and_keeps_its_energy():
    sharp, wide = (image(Artefacts(zipper=Zipper((500.0,), 2.0, w))) for w in (0.0, 400.0))
    assert float(wide.abs().square().sum()) == pytest.approx(float(sharp.abs().square().sum()), rel=1e-9)
    assert float(wide[17].abs().square().sum()) < 0.6 * float(sharp[17].abs().square().sum())


def test_two_tones_have_two_lines_and_one_outside_the_band_has_none():
    scan = image(Artefacts(zipper=Zipper((-2500.0, 1000.0, 9000.0), 1.0), encoding=AxisRoles(0, 1, 250.0)))
    assert (scan.abs().square().mean((1, 2)) > 1e-9).nonzero()[:, 0].tolist() == [5, 19]


def test_zipper_follows_its_seed():
    one, same, other = (image(Artefacts(zipper=Zipper((0.0,), 1.0, seed=s))) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_spike_is_a_wave_of_its_amplitude_direction_and_phase():
    scan = image(Artefacts(spikes=Spikes((Spike((0.1, -0.25, 0.0), 2.0, 30.0),))))
    torch.testing.assert_close(scan.abs(), torch.full(SCAN.shape, 2.0, dtype=torch.float64))
    assert math.degrees(float(scan[15, 12, 5].angle())) == pytest.approx(30)
    per_voxel = [float((scan[tuple(at)] / scan[15, 12, 5]).angle()) for at in ((16, 12, 5), (15, 13, 5), (15, 12, 6))]
    assert per_voxel == pytest.approx([2 * math.pi * 0.1, -2 * math.pi * 0.25, 0], abs=1e-9)


def test_spikes_at_the_ends_of_the_band_are_single_samples():
    scan = image(Artefacts(spikes=Spikes((Spike((0.5, 0.5, 0.5), 1.0), Spike((-0.5, -0.5, -0.5), 1.0)))))
    k_space = FourierOp(SCAN.shape, C128)(scan).abs()
    assert int((k_space > 1e-9).sum()) == 2
    assert float(k_space[-1, -1, -1]) == pytest.approx(float(k_space[0, 0, 0]))


def test_zipper_and_spikes_add_up_in_the_precision_asked_for():
    zipper, spikes = Zipper((100.0,), 1.0), Spikes((Spike((0.1, 0.2, 0.3), 1.0),))
    both = image(Artefacts(zipper=zipper, spikes=spikes))
    torch.testing.assert_close(both, image(Artefacts(zipper=zipper)) + image(Artefacts(spikes=spikes)))
    single = interference_of(Artefacts(zipper=zipper), SCAN, torch.complex64, "cpu")
    assert single is not None
    assert single.dtype == torch.complex64


def test_nothing_interferes_by_default():
    assert interference_of(NO_ARTEFACTS, SCAN, torch.float32, "cpu") is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Zipper((), 1.0), "at least one"),
        (lambda: Zipper((math.inf,), 1.0), "finite frequency"),
        (lambda: Zipper((0.0,), -1.0), "not negative"),
        (lambda: Zipper((0.0,), 1.0, math.nan), "not negative"),
        (lambda: Spike((0.6, 0, 0), 1.0), "between -0.5 and 0.5"),
        (lambda: Spike((0.1, 0, 0), math.inf), "finite amplitude"),
        (lambda: Spikes(()), "at least one"),
    ],
)
def test_refuses_parameters_out_of_range(build, message):
    with pytest.raises(BadInputError, match=message):
        build()
