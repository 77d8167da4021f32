"""Fixed colour scales of quantitative maps, so that one colour means one value on every page."""

from __future__ import annotations

from dataclasses import dataclass

from mrkit.report.pictures import BACKGROUND, DIVERGING, Rgb, Window, css_colour
from mrkit.report.report import Legend

# F. Crameri, Scientific colour maps (doi 10.5281/zenodo.1243862), read at 13 points: within 5 of 255 of the originals.
LIPARI: tuple[Rgb, ...] = (
    (3, 19, 38),
    (12, 46, 77),
    (41, 75, 112),
    (82, 91, 122),
    (107, 95, 118),
    (133, 96, 111),
    (165, 98, 103),
    (200, 103, 95),
    (229, 123, 98),
    (233, 153, 115),
    (229, 180, 136),
    (237, 211, 173),
    (253, 245, 218),
)
NAVIA: tuple[Rgb, ...] = (
    (3, 19, 39),
    (6, 43, 80),
    (11, 69, 120),
    (27, 96, 143),
    (40, 114, 143),
    (52, 126, 136),
    (65, 138, 128),
    (80, 152, 119),
    (101, 171, 108),
    (135, 194, 105),
    (186, 218, 135),
    (227, 234, 182),
    (252, 244, 217),
)
GREY: tuple[Rgb, ...] = (BACKGROUND, (255, 255, 255))


@dataclass(frozen=True)
class QuantityScale:
    """How a quantity is shown: `low` to `high` in `unit` by `colours`; a stored value times `factor` is in `unit`."""

    name: str
    unit: str
    low: float
    high: float
    colours: tuple[Rgb, ...]
    factor: float = 1.0

    @property
    def window(self) -> Window:
        """The range in stored units."""
        return Window(self.low / self.factor, self.high / self.factor)

    @property
    def legend(self) -> Legend:
        """The colour bar, with its unit."""
        middle = (self.low + self.high) / 2
        labels = (f"{self.low:g}", f"{middle:g}", f"{self.high:g}\N{NO-BREAK SPACE}{self.unit}".rstrip())
        return Legend(tuple(css_colour(c) for c in self.colours), labels, continuous=True)

    def label(self) -> str:
        """Return the range in words."""
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip()


# Lipari for T1 and Navia for T2: Fuderer et al., Magn Reson Med 2025;93:490, here on linear scales.
T1_SCALE = QuantityScale("T1", "s", 0.0, 2.5, LIPARI)
T2_SCALE = QuantityScale("T2", "ms", 0.0, 200.0, NAVIA, factor=1e3)
T1_SD_SCALE = QuantityScale("sd of T1", "ms", 0.0, 200.0, LIPARI, factor=1e3)
T2_SD_SCALE = QuantityScale("sd of T2", "ms", 0.0, 40.0, NAVIA, factor=1e3)
PD_SD_SCALE = QuantityScale("sd of PD", "% of PD", 0.0, 20.0, GREY, factor=100.0)
B1_SCALE = QuantityScale("B1", "of nominal", 0.7, 1.3, DIVERGING)
RESIDUAL_SCALE = QuantityScale("Residual", "%", 0.0, 50.0, GREY, factor=100.0)
ERROR_SCALE = QuantityScale("Error", "%", -25.0, 25.0, DIVERGING, factor=100.0)
