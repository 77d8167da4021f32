"""What is shipped, and that the documents agree with it."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = {"mrcore", "ulfsim", "inr", "recon", "iqt", "mrkit"}


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    ).stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is in the extra 'test'").WheelBuilder
    built = next(builder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"]))
    with zipfile.ZipFile(built) as archive:
        yield archive


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    info = f"mrkit-{PROJECT['project']['version']}.dist-info"
    assert {name.partition("/")[0] for name in wheel.namelist()} == {*PACKAGES, info}
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    for package in PACKAGES:
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {str(path.relative_to(ROOT)) for path in files} <= set(wheel.namelist())
        assert f"{package}/py.typed" in wheel.namelist()


def test_wheel_is_small_and_has_the_command(wheel):
    assert sum(entry.compress_size for entry in wheel.infolist()) < 10e6  # 7 MB are the weights of denoisers
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "mrkit = mrkit.cli:main" in wheel.read(entry_points).decode()


def test_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    citation, changes = (ROOT / "CITATION.cff").read_text(), (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [version]
    newest = re.search(r"^## \[(\d\S*)\] - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
    assert f"date-released: {newest[2]}" in citation


def test_licence_is_the_same_everywhere():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text()
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_commands_of_the_documents_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / document).read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def usage(*words: str) -> str:
    command = [sys.executable, "-c", "from mrkit.cli import main; main()", *words, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout


def test_readme_names_the_commands_that_exist():
    named = set(re.findall(r"(?:`|^)mrkit ([a-z][a-z-]*)", README, re.MULTILINE))
    assert named >= {"demo", "simulate", "superresolve", "info"}
    assert all(re.search(rf"\b{verb}\b", usage()) for verb in named)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents_have_their_options(document):
    for line in re.findall(r"^mrkit (?!--)(.*?)(?: #.*)?$", document.read_text(), re.MULTILINE):
        words = line.split()
        verb = words[: 2 if words[0] == "transfer" else 1]
        options = {option for option in re.findall(r"--[a-z-]+", line) if option != "--help"}
        assert options <= set(re.findall(r"--[a-z0-9-]+", usage(*verb))), line


def test_readme_speaks_of_research_use():
    assert "research use only" in README.lower()
    assert "Apache" in README


def test_torch_is_neither_pinned_nor_needed_to_build():
    torch = [line for line in PROJECT["project"]["dependencies"] if line.startswith("torch")]
    assert torch == ["torch>=2.4"]
    assert not any("torch" in line for line in PROJECT["build-system"]["requires"])
    extras = PROJECT["project"]["optional-dependencies"]
    named = " ".join([*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)])
    # deepinv, monai and others bring torchvision.
    assert not re.search(r"torchvision|tinycudann|monai|mrpro|deepinv", named)


def test_importing_mrkit_does_not_import_torch():
    loaded = python("import sys, mrkit; print(*(m for m in ('torch', 'numpy', 'nibabel') if m in sys.modules))")
    assert loaded == ""
