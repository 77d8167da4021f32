"""Trial scans: a source in the contrast of a preset, scanned with one point spread and one noise or another."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mrcore.data.acquisition import Acquisition
from mrcore.data.grid import Triple
from mrcore.data.volume import TissueMap, Volume
from mrcore.forward import predict
from mrcore.noise import complex_noise
from mrcore.random import seeded
from ulfsim.calibration.gains import calibrate
from ulfsim.matching.like import blurred
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.protocols.presets import Preset
from ulfsim.source.source import Source, truth_of


@dataclass(frozen=True, eq=False)
class Trial:
    """What is scanned (`truth`), how, and with what noise per real channel; `tissues` as the scan sees them."""

    truth: Volume
    acquisition: Acquisition
    tissues: TissueMap
    noise_sd: float
    seed: int

    def scan(self, fwhm_mm: Triple) -> Volume:
        """Return the magnitude scan with Gaussians of `fwhm_mm`."""
        acquisition = blurred(self.acquisition, fwhm_mm)
        clean = self.clean(acquisition)
        return Volume(self.noisy(clean.data, self.noise_sd, acquisition.noise_fwhm_mm), clean.grid)

    def clean(self, acquisition: Acquisition) -> Volume:
        """Return the noise-free scan."""
        plan = plan_scan(self.truth.grid, acquisition, self.truth.data.dtype)
        return Volume(predict(plan.operator, self.truth.data), plan.scan_grid)

    def noisy(self, clean: Tensor, sd: float, fwhm_mm: Triple, draw: int = 0) -> Tensor:
        """Return the magnitude of `clean` (X, Y, Z) with the noise of one `draw`, whatever its sd and colour."""
        x, y, z = (f / v for f, v in zip(fwhm_mm, self.acquisition.voxel_mm, strict=True))
        generator = seeded(self.seed, f"ulfsim.matched:noise {draw}")
        return (clean + complex_noise(tuple(clean.shape), sd, generator, (x, y, z), dtype=clean.dtype)).abs()


def trial_of(preset: Preset, source: Source, seed: int) -> Trial:
    """Return the trial of `source` in the contrast of `preset`.

    The gains hardly depend on the PSF, and edges hardly on the gains: they are calibrated once.
    """
    plan = plan_scan(source.volume.grid, preset.acquisition, source.volume.data.dtype)
    found = calibrate(source, plan, preset.snr)
    truth = truth_of(source, found.gains, found.background_gain)
    return Trial(truth, preset.acquisition, tissues_through(plan, source.tissues), found.noise_sd, seed)
