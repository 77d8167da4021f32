# %% [markdown]
# # Artefacts of an ultra-low-field scan
#
# Each artefact is a small record of physical parameters. They are off by default; what is on acts deterministically,
# in one linear operator from the object to the complex scan, and is written beside the scan as JSON.
#
# `python examples/artefacts.py docs/artefacts.png` keeps the picture; otherwise it is left in a temporary folder.

# %%
import io
import json
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from mrcore import MissingExtraError, TissueMap, Volume, cropped, digital_head, head_grid
from mrkit import load_template
from mrkit.report import BACKGROUND, Section, Window, intensity_picture, mosaic_picture, sections, signed_picture
from ulfsim import (
    MILD,
    NO_ARTEFACTS,
    PRESETS,
    Artefacts,
    calibrated_simulation,
    draw_artefacts,
    plan_scan,
    simulate,
    source_of,
    with_margin,
)
from ulfsim.artefacts import (
    AxisRoles,
    B0Distortion,
    ConcomitantWarp,
    IntensityDrift,
    NyquistGhost,
    ReceiveBias,
    ShotMotion,
    ShotPose,
    Spike,
    Spikes,
    Wrap,
    Zipper,
    disturbed_operator,
    from_json,
    interference_of,
    peak_to_peak_ppm,
    to_json,
)

torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# ## The object
#
# The ICBM-152 template where nilearn is installed, a digital head otherwise; in the contrast of the 64 mT preset.


# %%
def some_head() -> tuple[Volume, TissueMap]:
    """Return a T1w head and its tissues, clear of the edge of its lattice."""
    try:
        template = load_template()
    except MissingExtraError:
        phantom = digital_head(head_grid(96, 200.0), seed=1)
        return with_margin(phantom.image, phantom.tissues, 10.0)
    at = template.mask.nonzero()
    low, high = at.amin(0).tolist(), (at.amax(0) + 1).tolist()
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    image = template.t1.data[window]
    grid = cropped(template.t1.grid, (low[0], low[1], low[2]), (image.shape[0], image.shape[1], image.shape[2]))
    tissues = TissueMap(template.tissues.prob[:, *window], template.tissues.names, grid)
    return with_margin(Volume(image, grid, template.t1.meta), tissues, 20.0)


source = source_of(*some_head())
calibration, simulation = calibrated_simulation(source, PRESETS["hyperfine-t1w"], seed=1)
acquisition, scan_grid = simulation.acquisition, simulation.scan.grid
print(f"scan {scan_grid.shape} of {acquisition.voxel_mm} mm, noise sd {acquisition.noise_sd:.3g}")

# %% [markdown]
# ## One artefact at a time
#
# Voxel axes of the scan are R, A and S. Rows are read out along R and phase-encoded along A, 250 Hz per voxel. Fields
# are in world millimetres from the centre of the field of view; interference is in units of the noise.

# %%
ROWS = AxisRoles(readout_axis=0, phase_axis=1, bandwidth_hz=250.0)
POSES = (
    ShotPose(),
    ShotPose((1.5, 0, 0), (0, 0, 2)),
    ShotPose((0, -1.5, 0), (1, 0, -2)),
    ShotPose((1, 1, 0), (0, 0, 3)),
)
FIELD = B0Distortion((0, 60, 0, 90, 0, 0, -120, 90))
GALLERY: dict[str, Artefacts] = {
    "no artefact": NO_ARTEFACTS,
    "receive bias\n2 : 1 over 20 cm": Artefacts(bias=ReceiveBias(2.0, (0.4, 0.8, 0, 0, 0, 0, -0.5, -0.5, -0.5))),
    f"B0: {peak_to_peak_ppm(FIELD):.0f} ppm over 20 cm\n250 Hz per voxel": Artefacts(b0=FIELD, encoding=ROWS),
    "concomitant field\n1000 Hz per voxel": Artefacts(
        concomitant=ConcomitantWarp("A"), encoding=replace(ROWS, bandwidth_hz=1000.0)
    ),
    "motion: 4 shots interleaved\nup to 1.5 mm, 3 degrees": Artefacts(motion=ShotMotion(POSES), encoding=ROWS),
    "Nyquist ghost\n20 degrees, odd and even lines": Artefacts(ghost=NyquistGhost(20.0), encoding=ROWS),
    "drift over slices\n-30 %, two passes": Artefacts(drift=IntensityDrift(-0.3, over_slices=True, n_passes=2)),
    "wrap\nfield of view x 0.72": Artefacts(wrap=Wrap(0.72), encoding=ROWS),
    "zipper: 2 tones\n10 noise sd": Artefacts(zipper=Zipper((-6000.0, 2500.0), 10.0, 100.0), encoding=ROWS),
    "spike in k-space\n3 noise sd": Artefacts(spikes=Spikes((Spike((0.11, 0.07, 0.0), 3.0),))),
}

# %% [markdown]
# The same object, gains and seed, so the same noise: differences show the artefact alone.

# %%
scans = {}
for label, artefacts in GALLERY.items():
    begin = time.perf_counter()
    done = simulate(source, acquisition, calibration.gains, 1, calibration.background_gain, artefacts)
    scans[label] = done.scan
    print(f"{', '.join(artefacts.names) or 'none'}: {time.perf_counter() - begin:.1f} s")

# %% [markdown]
# ## The picture
#
# Each scan, and below it how it differs from the first: red is brighter, blue darker.


# %%
def captioned(png: bytes, caption: str, height: int = 46) -> bytes:
    """Return the picture with two lines of text above it."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    out = Image.new("RGB", (picture.width, picture.height + height), BACKGROUND)
    out.paste(picture, (0, height))
    draw = ImageDraw.Draw(out)
    for row, (line, colour) in enumerate(zip(caption.split("\n"), ((240, 240, 240), (165, 170, 178)), strict=False)):
        draw.text((picture.width / 2, 18 + 20 * row), line, colour, ImageFont.load_default(15), "ms")
    buffer = io.BytesIO()
    out.save(buffer, "PNG")
    return buffer.getvalue()


reference = next(iter(scans.values()))
brain = reference.data > 0.25 * float(reference.data.max())
axial, coronal, _ = sections(scan_grid, brain, pixel_mm=0.8, margin_mm=14.0)
white = float(reference.data[brain].median()) * 1.7
window, limit = Window(0.0, white), 0.2 * white


def panel(label: str) -> tuple[bytes, bytes]:
    """Return the scan with its caption, and its difference to the undisturbed one."""
    section: Section = coronal if label.startswith("drift") else axial
    difference = Volume(scans[label].data - reference.data, scan_grid)
    return captioned(intensity_picture(scans[label], section, window), label), signed_picture(
        difference, section, limit
    )


panels = [panel(label) for label in scans]
first = Image.open(io.BytesIO(panels[0][1]))
middle = (first.width / 2, first.height / 2)
text = "below each scan:\ndifference to the first,\nred brighter, blue darker"
ImageDraw.Draw(first).multiline_text(middle, text, (165, 170, 178), ImageFont.load_default(15), "mm", 6, "center")
first.save(buffer := io.BytesIO(), "PNG")
panels[0] = (panels[0][0], buffer.getvalue())
rows = [[pair[kind] for pair in panels[start : start + 5]] for start in (0, 5) for kind in (0, 1)]
target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "artefacts.png"
whole = Image.open(io.BytesIO(mosaic_picture(rows))).quantize(256, kmeans=3, dither=Image.Dither.NONE)
whole.save(target, optimize=True)
print(f"{target}, {target.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# ## What the physics says
#
# The ghost of even and odd lines that differ by a phase phi has sin(phi / 2) of the image, half a field of view away;
# a tone stands in the column of its frequency; displaced signal is neither made nor lost.

# %%
truth, plan = simulation.truth, plan_scan(simulation.truth.grid, acquisition)
clean = disturbed_operator(plan, NO_ARTEFACTS)(truth.data)
ghosted = disturbed_operator(plan, Artefacts(ghost=NyquistGhost(20.0), encoding=ROWS))(truth.data)
half = math.radians(20.0) / 2
n_lines = scan_grid.shape[1]
predicted = math.cos(half) * clean + 1j * math.sin(half) * clean.roll(n_lines // 2, 1)
ghost_error = float((ghosted - predicted).abs().max() / clean.abs().max())

tone = interference_of(Artefacts(zipper=Zipper((2500.0,), 10.0), encoding=ROWS), scan_grid, clean.dtype, "cpu")
assert tone is not None
column = int(tone.abs().square().sum((1, 2)).argmax())

warped = disturbed_operator(plan, Artefacts(b0=FIELD, concomitant=ConcomitantWarp(), encoding=ROWS))(truth.data)
kept = float(warped.real.double().sum() / clean.real.double().sum())
print(f"ghost as predicted to {ghost_error:.1e}, tone in column {column}, signal kept {kept:.6f}")

# %% [markdown]
# ## Drawn at random
#
# `draw_artefacts` picks artefacts and strengths from stated ranges. Seed and key decide; JSON keeps them exactly.

# %%
drawn = draw_artefacts(MILD, scan_grid, seed=3, key="example")
read_back = from_json(json.loads(json.dumps(to_json(drawn))))
recorded = done.scan.meta["Simulation"]["Artefacts"]
print(f"drawn: {', '.join(drawn.names)}")
print(f"{time.perf_counter() - started:.1f} s")

# %%
assert torch.equal(clean.real, plan.operator(truth.data))
assert ghost_error < 1e-5
assert column == scan_grid.shape[0] // 2 + round(2500.0 / ROWS.bandwidth_hz)
assert abs(kept - 1) < 1e-4
assert read_back == drawn
assert from_json(recorded) == list(GALLERY.values())[-1]
assert draw_artefacts(MILD, scan_grid, seed=3, key="example") == drawn
