# %% [markdown]
# # The forward model: one operator for simulation and inversion
#
# An object on a fine lattice, a scan with thick slices, and the operator between them. The operator knows the world:
# it takes two grids with affines, a point spread along the axes of the scan, and nothing else.

# %%
import math
import time

import numpy as np
import torch

from mrcore import (
    Grid,
    add_noise,
    conjugate_gradient,
    covering_grid,
    gaussian_psf,
    grid_about,
    imaging_operator,
    predict,
    seeded,
    to_world,
)

torch.set_num_threads(2)
started = time.perf_counter()

# %% [markdown]
# A scan of 1.6 x 1.6 x 5 mm, with its axes turned by 20 degrees about S, and the 1 mm lattice that covers it.

# %%
turn = math.radians(20)
axes = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
scan_grid = grid_about(np.array([2.0, -5.0, 10.0]), axes, (1.6, 1.6, 5.0), (40, 44, 14))
object_grid = covering_grid(scan_grid, voxel_mm=1.0, margin_mm=5.0)
psf = gaussian_psf(scan_grid.spacing_mm)
operator = imaging_operator(object_grid, scan_grid, psf)
print(f"object {object_grid.shape} at {object_grid.spacing_mm} mm -> scan {scan_grid.shape}")

# %% [markdown]
# The object: a soft ellipsoid with a small bright ball whose world position we know.


# %%
def ball(grid: Grid, centre_mm: tuple[float, float, float], radii_mm: tuple[float, float, float]) -> torch.Tensor:
    """Ellipsoid with an edge about 1 mm wide, in world millimetres."""
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    distance = np.linalg.norm((to_world(grid, voxels) - centre_mm) / radii_mm, axis=-1)
    return torch.sigmoid(torch.from_numpy((1 - distance) * min(radii_mm) * 4)).float()


ball_centre_mm = (9.3, -12.1, 4.7)
truth = ball(object_grid, (2, -5, 10), (22, 26, 24)) + ball(object_grid, ball_centre_mm, (5, 5, 5))
ball_alone = operator(ball(object_grid, ball_centre_mm, (5, 5, 5)))

# %% [markdown]
# Three properties that any acquisition model must have. The adjoint is exact; a flat object keeps its value; and what
# lies somewhere in the world lies there in the scan (to a tenth of a millimetre: slices of 5 mm undersample a ball).

# %%
x = torch.randn(operator.shape_in, generator=seeded(0, "x"))
y = torch.randn(operator.shape_out, generator=seeded(0, "y"))
left, right = float((operator(x) * y).sum()), float((x * operator.H(y)).sum())
dot_error = abs(left - right) / float(torch.linalg.vector_norm(operator(x)) * torch.linalg.vector_norm(y))

flat = operator(torch.full(operator.shape_in, 3.0))
flat_error = float((flat - 3.0).abs().max())

scan_voxels = np.stack(np.meshgrid(*map(np.arange, scan_grid.shape), indexing="ij"), -1)
weights = ball_alone.double().numpy()[..., None]
centroid_mm = (to_world(scan_grid, scan_voxels) * weights).sum((0, 1, 2)) / weights.sum()
print(f"dot test {dot_error:.1e}, flat {flat_error:.1e}, ball at {centroid_mm.round(2)} mm")

# %% [markdown]
# The adjoint is also the gradient, so any fit in PyTorch runs through the operator.

# %%
image = torch.zeros(operator.shape_in, requires_grad=True)
measured = add_noise(predict(operator, truth), sd=0.02, generator=seeded(1, "noise"))
(0.5 * (operator(image) - measured).square().sum()).backward()
gradient_error = float((image.grad + operator.H(measured)).abs().max())

# %% [markdown]
# Inversion: conjugate gradients on the normal equations with a little Tikhonov damping. The solver says how it ended.

# %%
damping = 4e-3
solution = conjugate_gradient(
    lambda v: operator.H(operator(v)) + damping * v, operator.H(measured), max_iter=60, tolerance=1e-3
)
misfit = float((operator(solution.x) - measured).square().mean().sqrt())
error = float((solution.x - truth).square().mean().sqrt())
backprojected = operator.H(measured) / operator.H(torch.ones(operator.shape_out)).clamp_min(1e-3)
error_backprojected = float((backprojected - truth).square().mean().sqrt())
print(f"{solution.message} in {solution.n_iter} steps: misfit {misfit:.4f} at a noise of 0.02")
print(f"error {error:.4f}, by back-projection {error_backprojected:.4f}")
print(f"{time.perf_counter() - started:.1f} s")

# %%
assert dot_error < 1e-6
assert flat_error < 1e-4
assert np.abs(centroid_mm - ball_centre_mm).max() < 0.1
assert gradient_error < 1e-5
assert solution.converged
assert misfit < 0.03
assert error < 0.9 * error_backprojected
