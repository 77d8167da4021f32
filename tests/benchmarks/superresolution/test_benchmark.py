"""The benchmark of super-resolution: its plan, what is kept, its targets, and a run on a phantom."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from common import sources

ROOT = Path(__file__).parents[3]
METHODS = ("trilinear", "cubic", "Tikhonov CG", "TV + Hessian", "default")
QUICK = ("--phantom", "--voxel", "4", "--threads", "1", "--seeds", "1", "--conditions", "--parts", "simulated")
MODULES = ("methods", "plan", "published", "real", "scene", "scores", "slices", "speed", "targets")


def run(out, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "superresolution", *QUICK, "--methods", *METHODS]
    done = subprocess.run(
        [*command, "--out", str(out), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "superresolution.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return out, run(out)


@pytest.fixture(scope="module")
def parts():
    found = {name: importlib.import_module(f"superresolution.{name}") for name in MODULES}
    return SimpleNamespace(**found, main=importlib.import_module("superresolution.benchmark"), sources=sources)


def table(record, title):
    return {row["method"]: row for row in record["rows"] if row["table"] == title}


def test_every_method_has_scores_tissues_costs_and_means(finished, parts):
    _, record = finished
    images, tissues, costs, means = (
        table(record, getattr(parts.scores, name)) for name in ("IMAGES", "TISSUES", "COSTS", "MEANS")
    )
    assert set(images) == set(METHODS)
    assert set(tissues) == {*METHODS, parts.scores.TRUTH, "default, own tissues"}
    assert set(costs) == {*METHODS, parts.scores.PREPARATION}
    assert images["TV + Hessian"]["PSNR dB inside"] > images["cubic"]["PSNR dB inside"]
    assert images["cubic"]["PSNR dB inside"] > images["trilinear"]["PSNR dB inside"]
    assert costs["default"]["seconds"] > costs["cubic"]["seconds"] > 0
    assert costs["default"]["threads"] == 1
    assert means["default"]["scans"] == 1
    assert means["default"]["F1@1 inside"] == images["default"]["F1@1 inside"]
    gain = table(record, parts.scores.GAINS)["cubic"]
    error = "gradient error whole"
    assert gain[error] == pytest.approx(images["TV + Hessian"][error] - images["cubic"][error]), "positive: better"


def test_targets_are_all_there_and_only_those_measured_can_be_met(finished):
    record = finished[1]
    assert len(record["targets"]) == 20
    by_name = {entry["name"]: entry for entry in record["targets"]}
    measured = by_name["default minus Huber-TV: PSNR dB inside, WM SNR 50, nominal, 0 scans"]
    assert not measured["met"], "Huber-TV was not run"
    assert not any(entry["met"] for entry in record["targets"])
    assert (record["seed"], record["name"]) == (1, "superresolution")


def test_picture_is_written_and_what_is_finished_is_taken_up_again(finished, parts, tmp_path):
    out, record = finished
    assert [path.name for path in (out / "work").glob("*.png")] == ["phantom_snr50_seed1_nominal.png"]
    work = tmp_path / "work"
    work.mkdir()
    for path in (out / "work").glob("*.json"):
        kept = json.loads(path.read_text())
        if kept["rows"][0].get("method") != "cubic":
            (work / path.name).write_text(path.read_text())
    again = run(tmp_path, "--minutes", "0")
    left = [(row["method"], row["scan"]) for row in again["rows"] if row["table"] == parts.plan.LEFT_OUT]
    assert left == [("cubic", "nominal")]
    images = parts.scores.IMAGES
    assert table(again, images) == {k: v for k, v in table(record, images).items() if k != "cubic"}


def test_plan_puts_every_method_on_every_brain_and_key_ones_on_further_conditions(parts):
    methods, conditions = parts.methods.METHODS, list(parts.plan.CONDITIONS)
    jobs = parts.plan.plan(methods, ["a", "b", "c"], ["b"], [1, 2], conditions, False)
    main = [(job.case.brain, m.name) for job in jobs for m in job.methods if job.case.labels() == _case(job, 50, 1)]
    assert sorted(main) == sorted((brain, m.name) for brain in "abc" for m in methods)
    low = [m for job in jobs for m in job.methods if (job.case.wm_snr, job.case.seed) == (20, 1)]
    assert low == [m for m in methods if m.key]
    assert {job.case.brain for job in jobs if job.case.wm_snr == 20} == {"b"}
    assert all(m.stacks for job in jobs for m in job.methods if job.case.scan == parts.scene.THREE)
    repeats = {(job.case.brain, job.case.wm_snr, job.case.scan) for job in jobs if job.case.seed == 2}
    assert repeats == {("b", 50, "nominal")}
    assert [job.case.brain for job in jobs[:3]] == ["a", "b", "c"]
    assert all(m.key for job in jobs[:3] for m in job.methods)
    everything = parts.plan.plan(methods, ["a", "b"], ["b"], [1], conditions, True)
    assert sum(len(job.methods) for job in everything if job.case.wm_snr == 20) == 2 * len(methods)
    again = parts.plan.plan(methods, ["a"], ["a"], [1, 2], conditions, True)
    assert {job.case.wm_snr for job in again if job.case.seed == 2} == {50, 20, 10}


def _case(job, wm_snr, seed):
    return {"brain": job.case.brain, "WM SNR": wm_snr, "seed": seed, "scan": "nominal"}


def test_version_follows_a_function_what_it_calls_and_what_it_imports(parts, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "from inr.fitting.tv_hessian import tv_hessian\nWEIGHT = 1\n\ndef one():\n    return two(WEIGHT)\n\n"
    text += "def two(x):\n    return x\n\ndef other():\n    return tv_hessian\n"

    def versions(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        module = importlib.import_module(name)
        return [parts.sources.version_of(f) for f in (module.one, module.other)]

    first = versions("made_a", text)
    assert versions("made_b", text) == first
    assert versions("made_c", text.replace("return x", "return -x"))[0] != first[0]
    assert versions("made_d", text.replace("WEIGHT = 1", "WEIGHT = 2"))[0] != first[0]
    assert versions("made_e", text.replace("return x", "return -x"))[1] == first[1]
    assert versions("made_f", text.replace("return tv_", "return  tv_"))[1] != first[1]
    found = parts.sources.sources_of("inr.fitting.tv_hessian")
    assert {"inr/fitting/tv_hessian.py", "inr/losses.py", "mrcore/forward.py"} <= set(found)
    assert "mrcore/denoisers/weights/denoiser_3d.safetensors" in parts.sources.sources_of("mrcore.denoisers.files")


def test_sources_that_decide_figures_exist(parts):
    assert all((ROOT / source).exists() for source in parts.main.VERSION_OF)


def test_difference_is_over_scans_that_both_methods_have(parts):
    fixed = {"table": "t", "seed": 1, "WM SNR": 50.0, "scan": "nominal"}

    def row(brain, method, figure):
        return {**fixed, "brain": brain, "method": method, "x": figure}

    rows = [row("a", "m", 3.0), row("a", "n", 1.0), row("b", "m", 5.0), row("c", "m", 7.0), row("c", "n", 6.0)]
    assert parts.scores.difference(rows, "t", "x", "m", "n", (50.0, "nominal")) == (1.5, 2)
    assert parts.scores.difference(rows, "t", "x", "m", "n", (20.0, "nominal")) == (None, 0)


def test_a_brain_that_was_scanned_more_often_counts_no_more(parts):
    assert parts.scores.mean_over_brains([("a", 1.0), ("b", 5.0), ("a", 3.0)]) == 3.5


@pytest.fixture(scope="module")
def phantom(parts):
    return parts.scene.load("phantom", None, 4.0)


def test_what_the_model_does_not_know_costs_something(parts, phantom):
    scenes = [
        parts.scene.scene_of(phantom, parts.scene.Case("phantom", 50.0, 1, scan), 4.0)
        for scan in (parts.scene.NOMINAL, parts.scene.PERTURBED)
    ]
    method = next(m for m in parts.methods.METHODS if m.name == "Tikhonov CG")
    rows = [parts.scores.examined(scene, method, 1)[0]["PSNR dB whole"] for scene in scenes]
    # A wrong pose would cost far more: the header of the perturbed scan must be right.
    assert 0 < rows[0] - rows[1] < 4
    grey = [float(s.goal.reference.data[s.goal.tissues.of("GM") > 0.9].mean()) for s in scenes]
    white = [float(s.goal.reference.data[s.goal.tissues.of("WM") > 0.9].mean()) for s in scenes]
    assert grey[1] / white[1] > 1.03 * grey[0] / white[0]


def test_published_scan_has_two_voxels_in_one_and_noise_in_the_foreground_alone(parts, phantom):
    scene, gains = parts.published.published_scene(phantom, "phantom", 3.0)
    source = phantom.volume.grid.spacing_mm
    assert scene.scans[0].grid.spacing_mm == pytest.approx((2 * source[0], 2 * source[1], source[2]))
    assert set(gains) == {"CSF", "GM", "WM"}
    assert scene.scans[0].data.min() == 0
    outside = scene.scans[0].data == 0
    assert 0.1 < outside.float().mean() < 0.95


def test_slices_are_turned_as_the_pictures_are_and_have_their_voxels(parts):
    image = np.zeros((16, 24), np.complex64)
    image[3, 5] = 1.0
    k_space = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))
    found = parts.slices._slice(k_space.astype(np.complex64))
    assert found.data.shape == (16, 24, 1)
    assert np.unravel_index(int(found.data.argmax()), found.data.shape) == (12, 18, 0)
    assert found.grid.spacing_mm == pytest.approx((250 / 16, 250 / 24, parts.slices.THICKNESS_MM))


@pytest.mark.slow
def test_three_stacks_beat_one(parts, phantom):
    method = next(m for m in parts.methods.METHODS if m.name == "Tikhonov CG")
    found = [
        parts.scores.examined(
            parts.scene.scene_of(phantom, parts.scene.Case("phantom", 50.0, 1, scan), 4.0), method, 1
        )[0]["PSNR dB inside"]
        for scan in (parts.scene.NOMINAL, parts.scene.THREE)
    ]
    assert found[1] > found[0] + 0.3


@pytest.mark.slow
def test_speed_of_a_phantom(parts, phantom):
    scene = parts.scene.scene_of(phantom, parts.scene.Case("phantom", 50.0, 1, parts.scene.NOMINAL), 4.0)
    rows = parts.speed.timed(scene.scans[0], 4.0)
    by_name = {row["what"]: row for row in rows}
    assert by_name[parts.speed.TOTAL]["seconds"] > by_name[parts.speed.PREVIEW]["seconds"] > 0
    targets = parts.speed.speed_targets(rows)
    assert [math.isnan(entry["value"]) for entry in targets] == [False, False, False, False, True]
