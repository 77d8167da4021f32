import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.operators.separable import SeparableOp
from mrcore.random import seeded
from mrcore.wiener import gaussian_solver


def _operator(dtype=torch.float64):
    generator = seeded(0, "wiener")
    a, b, c = (torch.rand((m, n), generator=generator, dtype=dtype) for m, n in ((3, 5), (4, 6), (2, 4)))
    return SeparableOp((a, b, c))


def _dense(operator):
    columns = torch.eye(5 * 6 * 4, dtype=operator.dtype).reshape(-1, 5, 6, 4)
    return operator(columns).reshape(120, -1).T


def test_estimate_is_the_mean_of_the_posterior():
    operator, ratio = _operator(), 0.3
    dense = _dense(operator)
    x, y, z = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), torch.arange(4.0), indexing="ij")
    at = [c.reshape(-1, 1).double() for c in (x, y, z)]
    covariance = torch.exp(-sum((c - c.T).abs() / length for c, length in zip(at, (2.0, 3.0, 1.5), strict=True)))
    scan = torch.rand((3, 4, 2), generator=seeded(1, "scan"), dtype=torch.float64)
    precision = dense.T @ dense / ratio + torch.linalg.inv(covariance)
    expected = torch.linalg.solve(precision, dense.T @ scan.reshape(-1) / ratio)
    found = gaussian_solver(operator, (2.0, 3.0, 1.5))(scan, ratio)
    torch.testing.assert_close(found.reshape(-1), expected, rtol=1e-9, atol=1e-9)


def test_data_step_minimises_its_objective():
    operator, ratio = _operator(), 0.7
    generator = seeded(2, "step")
    scan, z = torch.rand((3, 4, 2), generator=generator).double(), torch.rand((5, 6, 4), generator=generator).double()
    x = (z + gaussian_solver(operator, None)(scan - operator(z), ratio)).requires_grad_()
    objective = (operator(x) - scan).square().sum() / ratio + (x - z).square().sum()
    objective.backward()
    assert float(x.grad.abs().max()) < 1e-9 * float(objective.detach())


def test_each_scan_of_a_batch_has_its_own_noise():
    operator = _operator(torch.float32)
    solver = gaussian_solver(operator, (2.0, 2.0, 2.0))
    scans = torch.rand((2, 3, 4, 2), generator=seeded(3, "batch"))
    both = solver(scans, torch.tensor([0.1, 2.0]).reshape(-1, 1, 1, 1))
    torch.testing.assert_close(both[1], solver(scans[1], 2.0))
    assert float((both[0] - solver(scans[0], 2.0)).abs().max()) > 0.01


def test_autocast_does_not_reach_inside():
    operator = _operator(torch.float32)
    solver = gaussian_solver(operator, (2.0, 2.0, 2.0))
    scan = torch.rand((3, 4, 2), generator=seeded(4, "cast"))
    with torch.autocast("cpu", torch.bfloat16):
        inside = solver(scan, 0.01)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, solver(scan, 0.01))


def test_length_must_be_positive():
    with pytest.raises(BadInputError, match="correlation lengths"):
        gaussian_solver(_operator(), (1.0, 0.0, 1.0))
