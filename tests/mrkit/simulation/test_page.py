"""The page of a simulation: targets beside what the scan shows, gains, windows."""

import re
from functools import cache

import torch
from pages import Page, grid_of

from mrcore.data.volume import Volume
from mrcore.phantom import digital_head, head_grid
from mrkit.files.provenance import Record
from mrkit.report.report import build_page
from mrkit.simulation.page import Calibrated, calibrated_quantities, calibration_table, gains_table, simulate_report
from mrkit.simulation.simulate import simulate_ulf
from ulfsim.calibration.gains import Calibration

RECORD = Record(seed=7, segmenter="a segmenter 1.0", versions={})
CALIBRATION = Calibration(
    gains={"GM": 0.5, "WM": 1.0},
    background_gain=1.0,
    noise_sd=1.0,
    gauge="absolute",
    target={"GM": 40.0, "WM": 50.0},
    predicted={"GM": 40.0, "WM": 50.0},
    null_vector={"GM": 0.01, "WM": 0.04},
    feasible_interval=(-3.0, 2.0),
    active_bounds=("WM = 1",),
    sensitivity={"GM": {"GM": 0.02, "WM": -0.03}, "WM": {"GM": 0.05, "WM": 0.06}},
    scale="units of the source",
    warnings=(),
)


@cache
def simulated():
    head = digital_head(head_grid(48, 180.0), seed=1)
    return head.image, simulate_ulf(head.image, tissues=head.tissues, seed=1)


def test_targets_stand_beside_measured_values():
    table = calibration_table([Calibrated("WM SNR", 50.8, 49.3), Calibrated("nothing", 0.0, 0.1)])
    first, second = (row.values for row in table.rows)
    assert first[:2] == (50.8, 49.3)
    assert abs(first[2] + 2.953) < 1e-3
    assert second == (0.0, 0.1, None)
    assert all(column.definition for column in table.columns)


def test_gains_have_their_direction_bounds_and_sensitivities():
    table = gains_table(CALIBRATION)
    grey, white = (row.values for row in table.rows)
    assert grey == (0.5, 40.0, 0.01, 0.02 * 40 / 0.5, -0.03 * 50 / 0.5)
    assert white == (1.0, 50.0, 0.04, 0.05 * 40, 0.06 * 50)
    assert "on a bound: WM = 1" in table.note
    assert "-3 to 2 null vectors" in table.note


def test_the_page_of_a_simulated_scan():
    source, result = simulated()
    html = build_page(simulate_report(source, result, RECORD))
    page = Page(html)
    assert len([a for a in page.all("img") if a.get("src")]) == 4 * 3
    snr = {q.name: q for q in calibrated_quantities(result)}
    assert snr["SNR WM"].target == result.preset.snr["WM"]
    assert abs(snr["SNR WM"].measured / snr["SNR WM"].target - 1) < 0.1
    assert snr["CNR WM-GM"].target == result.preset.snr["WM"] - result.preset.snr["GM"]
    assert f"{snr['SNR WM'].measured:.2f}" in page.cells


def test_a_high_field_source_on_another_grid_has_its_own_window():
    _, result = simulated()
    source = Volume(1000 * torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0)), grid_of(4.0, 16))
    assert re.search(r"window [\d.]+ to 99\d", simulate_report(source, result, RECORD).figures[0].text)
