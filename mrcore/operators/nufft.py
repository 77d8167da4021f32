"""Fourier transform of an image at any positions in k-space: finufft on the CPU, cufinufft on a GPU."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from mrcore.errors import BadInputError, MissingExtraError
from mrcore.operators.linop import LinearOp, Shape, real_dtype

CPU = torch.device("cpu")

_TOLERANCE = {torch.complex64: 1e-4, torch.complex128: 1e-12}
_SMALLEST_OF_LOW_UPSAMPLING = 1e-6  # below, finufft needs its twofold grid in single precision
_FEW_SAMPLES = 20_000  # below, threads cost more than they save


@final
class NufftOp(LinearOp):
    """Images (X, Y, Z) to their N samples at `k_cyc_per_mm` (N, 3), in cycles/mm along the voxel axes.

    y(n) = (X Y Z)^(-1/2) sum_r x(r) exp(-2 pi i k_n . (r - r0) spacing), with r0 voxel `n // 2`: on the frequencies of
    the DFT this is `FourierOp`. Axes of one voxel carry no frequency and are left out; with Z = 1, (N, 2) will do. The
    sum has a relative error of about `tolerance` (None: 1e-4 in single, 1e-12 in double precision), the same in
    operator and adjoint, so they remain adjoint to rounding. Plans are kept, with the leading axes of the data as one
    batch: not for use from two threads at once.

    Barnett, Magland & af Klinteberg, SIAM J Sci Comput 2019;41:C479.

    Raises:
        BadInputError: positions of another shape or not finite, sizes or spacings that are not positive.
    """

    complex_in = complex_out = True

    def __init__(
        self,
        k_cyc_per_mm: Tensor,
        shape: Shape,
        spacing_mm: tuple[float, ...],
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = CPU,
        tolerance: float | None = None,
    ) -> None:
        _check(k_cyc_per_mm, shape, spacing_mm)
        self.k_cyc_per_mm, self.spacing_mm, self.tolerance = k_cyc_per_mm, tuple(spacing_mm), tolerance
        self.shape_in, self.shape_out = tuple(shape), (len(k_cyc_per_mm),)
        self.dtype, self.device = dtype.to_complex(), torch.device(device)
        self._modes = tuple(n for n in shape if n > 1) or (1,)
        self._plans: dict[int, tuple[int, Any]] = {}

    def _apply(self, x: Tensor) -> Tensor:
        return self._transformed(2, x, x.shape[: x.ndim - len(self.shape_in)], self._modes, self.shape_out)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._transformed(1, y, y.shape[:-1], self.shape_out, self.shape_in)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> NufftOp:
        return NufftOp(self.k_cyc_per_mm, self.shape_in, self.spacing_mm, dtype or self.dtype, device, self.tolerance)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_plans": {}}  # a plan lives in its process

    def _transformed(self, kind: int, data: Tensor, batch: Shape, given: Shape, wanted: Shape) -> Tensor:
        """Return the type 2 (samples of images) or type 1 (its adjoint) transform of (*batch, ...)."""
        n_transforms = math.prod(batch)
        if n_transforms == 0:
            return data.new_zeros((*batch, *wanted))
        scaled = (data / math.sqrt(math.prod(self.shape_in))).resolve_conj().contiguous()
        stacked = scaled.reshape(*((n_transforms,) if n_transforms > 1 else ()), *given)
        plan = self._plan(kind, n_transforms)
        on_cpu = self.device.type == "cpu"
        result: Tensor = torch.from_numpy(plan.execute(stacked.numpy())) if on_cpu else plan.execute(stacked)
        return result.reshape(*batch, *wanted)

    def _plan(self, kind: int, n_transforms: int) -> Any:  # noqa: ANN401  a plan of one of two libraries
        """Return the plan for a batch of this size, the last one where it fits: sorting the samples takes time."""
        size, plan = self._plans.get(kind, (0, None))
        if size != n_transforms:
            plan = self._new_plan(kind, n_transforms)
            self._plans[kind] = (n_transforms, plan)
        return plan

    def _new_plan(self, kind: int, n_transforms: int) -> Any:  # noqa: ANN401
        tolerance = self.tolerance or _TOLERANCE[self.dtype]
        # Chosen by hand: finufft would take 2, which is four to five times slower in 3-D at the same error.
        upsampling = 1.25 if tolerance > _SMALLEST_OF_LOW_UPSAMPLING else 2.0
        settings = {"n_trans": n_transforms, "eps": tolerance, "isign": -1 if kind == 2 else 1, "upsampfac": upsampling}
        name = str(self.dtype).removeprefix("torch.")
        if self.device.type == "cpu":
            # The adjoint adds samples onto the grid: one thread does so in one order, with the same bits each time.
            n_threads = torch.get_num_threads() if kind == 2 and self.shape_out[0] > _FEW_SAMPLES else 1
            plan = import_module("finufft").Plan(kind, self._modes, dtype=name, nthreads=n_threads, **settings)
            plan.setpts(*(p.numpy() for p in self._points()))
        else:
            plan = _cufinufft().Plan(kind, self._modes, dtype=name, **settings)
            plan.setpts(*self._points())
        return plan

    def _points(self) -> list[Tensor]:
        """Return the positions along each axis that has a frequency, in radians per voxel."""
        used = [axis for axis, n in enumerate(self.shape_in) if n > 1]
        if not used:
            return [torch.zeros(self.shape_out, dtype=real_dtype(self.dtype), device=self.device)]
        points = []
        for axis in used:
            cycles = self.k_cyc_per_mm[:, axis].double() * self.spacing_mm[axis]
            points.append((2 * np.pi * (cycles - cycles.round())).to(self.device, real_dtype(self.dtype)).contiguous())
        return points


def _check(k_cyc_per_mm: Tensor, shape: Shape, spacing_mm: tuple[float, ...]) -> None:
    if not 1 <= len(shape) <= 3 or min(shape) < 1 or len(spacing_mm) != len(shape) or not min(spacing_mm) > 0:
        raise BadInputError(f"expected one to three sizes, with a spacing in mm each, got {shape} and {spacing_mm}")
    columns = k_cyc_per_mm.shape[1] if k_cyc_per_mm.ndim == 2 else 0
    if columns != len(shape) and not (columns == 2 and len(shape) == 3 and shape[2] == 1):
        raise BadInputError(
            f"an image of {shape} needs positions in k-space of shape (N, {len(shape)}), got "
            f"{tuple(k_cyc_per_mm.shape)}; two columns are for images of one slice"
        )
    if not k_cyc_per_mm.is_floating_point() or k_cyc_per_mm.requires_grad or len(k_cyc_per_mm) == 0:
        raise BadInputError("positions in k-space are real floating constants, at least one of them")
    if not bool(torch.isfinite(k_cyc_per_mm).all()):
        raise BadInputError("positions in k-space must be finite")


def _cufinufft() -> Any:  # noqa: ANN401
    try:
        return import_module("cufinufft")
    except (ImportError, OSError) as error:
        raise MissingExtraError("a NUFFT on a GPU needs cufinufft: pip install 'mrkit[gpu]'") from error
