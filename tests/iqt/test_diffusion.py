import math

import pytest
import torch

from iqt import UNetSettings
from iqt.diffusion import Diffusion, NoisedCubes, noised, sample, velocity_loss
from iqt.restorer import RESIDUAL_SCALE, wiener_start
from mrcore.errors import BadInputError
from mrcore.operators.separable import SeparableOp
from mrcore.random import seeded
from mrcore.scan_cubes import ScanCubes

SHAPE = (16, 16, 20)


def _cubes(n=2):
    identity = SeparableOp(tuple(torch.eye(size) for size in SHAPE))
    truth = torch.rand((n, *SHAPE), generator=seeded(0, "truth"))
    scan = truth + 0.05 * torch.randn(truth.shape, generator=seeded(0, "noise"))
    brain = torch.ones(truth.shape, dtype=torch.bool)
    return ScanCubes(truth, brain, scan, torch.full((n,), 0.05), identity, (1.0, 1.0, 1.0), 1.0)


class _Oracle(torch.nn.Module):
    """Knows the residual: its velocity is exact for any state on the path of that residual."""

    def __init__(self, residual):
        super().__init__()
        self.residual = residual

    def forward(self, state, start, conditions, time):
        angle = (math.pi / 2 * time).reshape(-1, 1, 1, 1)
        noise = (state - angle.cos() * self.residual) / angle.sin()
        return angle.cos() * noise - angle.sin() * self.residual


@pytest.mark.parametrize(("n_steps", "from_time"), [(1, 1.0), (4, 1.0), (3, 0.6)])
def test_exact_velocities_lead_to_the_truth_from_any_noise(n_steps, from_time):
    start = torch.rand((2, *SHAPE), generator=seeded(1, "start"), dtype=torch.float64)
    residual = torch.randn(start.shape, generator=seeded(2, "residual"), dtype=torch.float64)
    noise = torch.randn(start.shape, generator=seeded(3, "noise"), dtype=torch.float64)
    if from_time < 1:  # on the path: the start of a real residual holds part of it
        noise = noise + math.cos(math.pi / 2 * from_time) / math.sin(math.pi / 2 * from_time) * residual
    found = sample(_Oracle(residual), start, torch.zeros((2, 3)), noise, n_steps, from_time)
    torch.testing.assert_close(found, start + RESIDUAL_SCALE * residual, rtol=0, atol=1e-9)


def test_the_loss_is_nought_for_exact_velocities_and_one_for_none():
    cubes = _cubes()
    batch = noised(cubes, seeded(0, "step"))
    start = wiener_start(cubes.operator, cubes.scan, cubes.noise_sd, 1.0)
    residual = (cubes.truth - start) / RESIDUAL_SCALE
    assert float(velocity_loss(_Oracle(residual), batch)) < 1e-6

    class Zero(torch.nn.Module):
        def forward(self, state, start, conditions, time):
            return torch.zeros_like(state)

    # At times 0 and 1 the velocity is the noise and minus the residual.
    for time, expected in ((0.0, batch.noise), (1.0, residual)):
        at = NoisedCubes(cubes, torch.full((2,), time), batch.noise)
        inner = expected[:, 4:-4, 4:-4, 5:-5].square().mean()
        assert float(velocity_loss(Zero(), at)) == pytest.approx(float(inner), rel=1e-4)


def test_times_are_spread_over_the_batch_and_follow_the_generator():
    one, two = (noised(_cubes(4), seeded(5, "t")) for _ in range(2))
    assert torch.equal(one.time, two.time)
    assert torch.equal(one.noise, two.noise)
    assert torch.equal((one.time * 4).long(), torch.arange(4))


def test_a_network_samples_the_same_for_the_same_noise_and_spreads_for_another():
    torch.manual_seed(0)
    model = Diffusion(UNetSettings(widths=(8, 8, 8), n_blocks=(1, 1, 1), n_transformers=1, n_heads=2))
    start = torch.rand((1, *SHAPE), generator=seeded(1, "start"))
    noises = [torch.randn(start.shape, generator=seeded(n, "noise")) for n in (0, 0, 1)]
    with torch.no_grad():
        a, b, c = (sample(model, start, torch.zeros((1, 3)), noise, 2) for noise in noises)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_wrong_steps_are_refused():
    with pytest.raises(BadInputError, match="sampling needs"):
        sample(_Oracle(0), torch.zeros((1, *SHAPE)), torch.zeros((1, 3)), torch.zeros((1, *SHAPE)), 0)
