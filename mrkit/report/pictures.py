"""Pictures of volumes: the same three planes of the world for every image, as PNG bytes.

Every image is sampled (nearest voxel) at the points of one raster in world millimetres, so grids of any voxel size,
axis order, flip or tilt show the same anatomy at the same place and scale, and thick voxels are seen as they are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.grid import Affine, Grid, directions, to_voxel, to_world
from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError

Rgb = tuple[int, int, int]

BACKGROUND: Rgb = (10, 11, 14)
# Okabe & Ito (2008): told apart by colour-blind readers too.
TISSUE_COLOURS: tuple[Rgb, ...] = ((86, 180, 233), (230, 159, 0), (240, 240, 235), (0, 158, 115), (204, 121, 167))
# Zero is the background, so that only what differs is seen.
DIVERGING: tuple[Rgb, ...] = ((150, 210, 255), (44, 123, 229), BACKGROUND, (226, 84, 43), (255, 205, 140))
_SAGITTAL_OFFSET_MM = 10.0
# What has no tissue is dimmed under tissue colours: bright scalp would outshine them.
_OUTSIDE_LEVEL = 0.4
# Points that fall between two voxels go toward R, A and S, not to the voxel that happens to have the even index.
_NUDGE_MM = 1e-3


@dataclass(frozen=True)
class Window:
    """Intensities `low` and `high` that are shown as black and white."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise BadInputError(f"a display window needs high above low, got {self.low:g} and {self.high:g}")


@dataclass(frozen=True, eq=False, repr=False)
class Section(Brief):
    """A raster in a plane of the world.

    Attributes:
        name: `axial`, `coronal` or `sagittal`.
        corner_mm: world position of the outer corner of the top left pixel.
        across_mm: world step from a pixel to its right neighbour; `down_mm` to the one below.
        width: pixels across; `height`: pixels down.
        ends: letters (L, R, A or P) of the body sides at the picture's left and right edge.
        position_mm: of the plane along its normal (toward S, A or R), from the world origin.
    """

    name: str
    corner_mm: NDArray[np.float64]
    across_mm: NDArray[np.float64]
    down_mm: NDArray[np.float64]
    width: int
    height: int
    ends: tuple[str, str]
    position_mm: float

    @property
    def caption(self) -> str:
        """Name, position and the side shown on the left, in words for a reader."""
        positive, negative = {"axial": ("S", "I"), "coronal": ("A", "P"), "sagittal": ("R", "L")}[self.name]
        side = negative if self.position_mm < 0 else positive
        return f"{self.name}, {side} {abs(self.position_mm):.0f} mm, {self.ends[0]} is left in the picture"


Sections = tuple[Section, Section, Section]


def sections(
    grid: Grid, mask: Tensor, *, pixel_mm: float = 0.5, margin_mm: float = 6.0, radiological: bool = True
) -> Sections:
    """Return an axial, a coronal and a sagittal section through the middle of `mask` (bool, on `grid`).

    The planes lie along the grid's voxel axes, each named by the body axis nearest to it, and cut voxel centres. All
    three have one height; they cover the mask plus a margin. `radiological`: the patient's left is on the right of
    the picture; otherwise on the left. Sagittal sections look to the left of the picture and lie 10 mm beside the
    middle, clear of the gap between the hemispheres.
    """
    if tuple(mask.shape) != grid.shape or not bool(mask.any()):
        raise BadInputError(f"a picture needs a non-empty mask of shape {grid.shape}, got {tuple(mask.shape)}")
    frame = body_frame(grid)
    # Coordinates along the frame's axes: right, anterior, superior; in mm from the world origin.
    points = to_world(grid, np.argwhere(mask.cpu().numpy())) @ frame
    low, high = points.min(0) - margin_mm, points.max(0) + margin_mm
    middle = np.median(points, axis=0) + _NUDGE_MM
    beside = middle + np.array([_SAGITTAL_OFFSET_MM, 0, 0])
    across = -frame[:, 0] if radiological else frame[:, 0]
    sides = ("R", "L") if radiological else ("L", "R")
    tall = max(high[1] - low[1], high[2] - low[2])
    plans = (
        ("axial", across, -frame[:, 1], high[0] - low[0], middle, sides),
        ("coronal", across, -frame[:, 2], high[0] - low[0], middle, sides),
        ("sagittal", -frame[:, 1], -frame[:, 2], high[1] - low[1], beside, ("A", "P")),
    )
    box_middle = (low + high) / 2
    out = []
    for normal, (name, right, down, wide, through, ends) in zip((2, 1, 0), plans, strict=True):
        width, height = (max(1, round(length / pixel_mm)) for length in (wide, tall))
        centre = box_middle.copy()
        centre[normal] = _on_voxel_centre(grid, frame, through)[normal]
        position = float(centre[normal])
        corner = frame @ (centre + _NUDGE_MM) - pixel_mm * (right * width + down * height) / 2
        out.append(Section(name, corner, right * pixel_mm, down * pixel_mm, width, height, ends, position))
    return cast("Sections", tuple(out))


def body_frame(grid: Grid) -> Affine:
    """Return the grid's voxel directions (3 x 3, columns) reordered and flipped to point most nearly R, A and S."""
    orientation = nib.io_orientation(grid.affine)
    order = np.argsort(orientation[:, 0])
    columns = directions(grid)[:, order] * orientation[order, 1]
    # Sheared axes are made orthogonal (polar decomposition), or pixels would not be square.
    u, _, v = np.linalg.svd(columns)
    return np.asarray(u @ v, np.float64)


def sample(data: Tensor, grid: Grid, section: Section) -> NDArray[np.float32]:
    """Return the nearest voxels of `data` (..., X, Y, Z) in `section`: (..., height, width), nan outside the grid."""
    column = np.arange(section.width)[None, :, None] + 0.5
    row = np.arange(section.height)[:, None, None] + 0.5
    world = section.corner_mm + column * section.across_mm + row * section.down_mm
    index = np.floor(to_voxel(grid, world) + 0.5).astype(np.int64)
    shape = np.array(grid.shape)
    known = ((index >= 0) & (index < shape)).all(-1)
    i, j, k = (torch.from_numpy(x) for x in np.moveaxis(np.clip(index, 0, shape - 1), -1, 0))
    values = data[..., i, j, k].cpu().numpy().astype(np.float32)
    return np.where(known, values, np.float32(np.nan))


def window_of(volume: Volume, mask: Tensor, percentiles: tuple[float, float] = (0.5, 99.5)) -> Window:
    """Return the display window of a reference: percentiles of its values inside `mask`."""
    low, high = np.percentile(volume.data[mask].cpu().numpy(), percentiles)
    return Window(float(low), float(high) if high > low else float(low) + 1.0)


def intensity_picture(volume: Volume, section: Section, window: Window) -> bytes:
    """Return the PNG of a grey image; the same window for every image that is to be compared."""
    values = sample(volume.data, volume.grid, section)
    return _png(_grey(values, window), section)


def tissue_picture(
    tissues: TissueMap, section: Section, underlay: Volume | None = None, window: Window | None = None
) -> bytes:
    """Return the PNG of tissue probabilities as mixed fixed colours, over a grey image where one is given."""
    prob = np.nan_to_num(sample(tissues.prob, tissues.grid, section)).clip(0, 1)
    colours = np.array([tissue_colour(t) for t in range(prob.shape[0])], np.float32)
    paint = np.moveaxis(prob, 0, -1) @ colours
    weight = prob.sum(0)[..., None].clip(0, 1)
    if underlay is None or window is None:
        base = np.broadcast_to(np.array(BACKGROUND, np.float32), paint.shape)
        return _png(paint + (1 - weight) * base, section)
    require_same_grid(tissues.grid, underlay.grid, "tissue maps and the image under them")
    grey = _grey(sample(underlay.data, underlay.grid, section), window)
    # Shading by the image keeps folds visible; full colour where it is bright.
    shade = 0.45 + 0.55 * grey / 255
    return _png(paint * shade + (1 - weight) * _OUTSIDE_LEVEL * grey, section)


def signed_picture(volume: Volume, section: Section, limit: float) -> bytes:
    """Return the PNG of a signed map: blue at -limit, dark at 0, red at +limit; beyond it the end colours."""
    if limit <= 0:
        raise BadInputError(f"the limit of a signed map must be positive, got {limit}")
    values = sample(volume.data, volume.grid, section)
    return _png(_coloured((values / limit + 1) / 2, DIVERGING), section)


def quantity_picture(
    volume: Volume, section: Section, window: Window, colours: tuple[Rgb, ...], mask: Tensor | None = None
) -> bytes:
    """Return the PNG of a map in equally spaced `colours` from `window.low` to `window.high`; dark outside `mask`."""
    values = sample(volume.data, volume.grid, section)
    if mask is not None:
        values = np.where(np.nan_to_num(sample(mask.float(), volume.grid, section)) > 0, values, np.float32(np.nan))
    return _png(_coloured((values - window.low) / (window.high - window.low), colours), section)


def mosaic_picture(rows: Sequence[Sequence[bytes]], gap: int = 4) -> bytes:
    """Return one PNG of pictures (PNG) in rows, such as those of a report, on a dark ground."""
    images = [[Image.open(io.BytesIO(png)).convert("RGB") for png in row] for row in rows]
    widths = [sum(i.width for i in row) + gap * (len(row) + 1) for row in images]
    heights = [max(i.height for i in row) + gap for row in images]
    whole = Image.new("RGB", (max(widths), sum(heights) + gap), BACKGROUND)
    y = gap
    for row, height in zip(images, heights, strict=True):
        x = gap
        for image in row:
            whole.paste(image, (x, y))
            x += image.width + gap
        y += height
    return _encoded(whole)


def tissue_colour(index: int) -> Rgb:
    """Return the fixed colour of the tissue of that index."""
    return TISSUE_COLOURS[index % len(TISSUE_COLOURS)]


def css_colour(colour: Rgb) -> str:
    """Return a colour as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _grey(values: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Return RGB in [0, 255]; black is the page's dark, and so is what no voxel covers."""
    level = np.nan_to_num((values - window.low) / (window.high - window.low), nan=0.0).clip(0, 1)[..., None]
    dark = np.array(BACKGROUND, np.float32)
    return np.asarray(dark + level * (255 - dark), np.float32)


def _coloured(values: NDArray[np.floating[Any]], colours: tuple[Rgb, ...]) -> NDArray[np.float32]:
    """Return RGB in [0, 255] of values in [0, 1]; beyond them the end colours, the page's dark where there is none."""
    at = np.linspace(0, 1, len(colours))
    stops = np.array(colours, np.float64)
    known = np.isfinite(values)
    level = np.where(known, values, 0)
    colour = np.stack([np.interp(level, at, stops[:, channel]) for channel in range(3)], -1)
    return np.where(known[..., None], colour, np.array(BACKGROUND)).astype(np.float32)


def _png(colours: NDArray[np.float32], section: Section) -> bytes:
    """Encode RGB values in [0, 255] and write the two side letters into the upper corners."""
    picture = Image.fromarray(np.rint(colours.clip(0, 255)).astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(picture)
    size = max(10, section.height // 20)
    font = ImageFont.load_default(size)
    pad = size // 2
    for letter, x, anchor in ((section.ends[0], pad, "lt"), (section.ends[1], section.width - pad, "rt")):
        draw.text((x, pad), letter, (205, 210, 218), font, anchor, stroke_width=2, stroke_fill=BACKGROUND)
    return _encoded(picture)


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _on_voxel_centre(grid: Grid, frame: Affine, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the voxel centre of `grid` nearest to `point`, both in coordinates of the frame."""
    voxel = np.rint(to_voxel(grid, frame @ point))
    return np.asarray(to_world(grid, voxel) @ frame, np.float64)
