"""What every benchmark shares: write figures as JSON with a Markdown table beside, and measure what a step costs."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
"""The folder of the benchmarks."""
FOLDER = HERE / "results"
PACKAGES = ("mrkit", "torch", "numpy", "scipy", "nibabel", "scikit-image", "nilearn")

Row = Mapping[str, object]


class Cost:
    """Seconds, CPU seconds and peak memory (MiB) of a block; filled when the block ends."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0


def target(name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> Row:
    """Return one entry of `targets`: what was asked, what came, and whether it is met (NaN never is)."""
    bounds = [f"{sign} {bound:g}" for sign, bound in ((">=", at_least), ("<=", at_most)) if bound is not None]
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most) and value == value
    return {"name": name, "target": " and ".join(bounds), "value": value, "met": bool(met)}


def write_results(
    name: str, rows: Sequence[Row], targets: Sequence[Row], seed: int, *, device: str = "cpu", folder: Path = FOLDER
) -> Path:
    """Write `folder`/`name`.json and .md and return the path of the JSON.

    `rows` are tables of figures, one mapping a row; a row that has a key `table` goes to the Markdown table of that
    title. `targets` hold `name`, `target`, `value`, `met`, one for each number asked for, met or not.
    """
    for entry in targets:
        if set(entry) != {"name", "target", "value", "met"}:
            raise ValueError(f"a target needs name, target, value and met, got {sorted(entry)}")
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "name": name,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "machine": f"{platform.machine()} {platform.system()}",
        "versions": versions(),
        "seed": seed,
        "rows": [dict(row) for row in rows],
        "targets": [dict(entry) for entry in targets],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(record), encoding="utf-8")
    return path


def markdown(record: Mapping[str, object]) -> str:
    """Return the Markdown page of a record: the targets first, then one table per `table` key of the rows."""
    rows: list[dict[str, object]] = [dict(row) for row in record["rows"]]  # type: ignore[attr-defined]
    lines = [f"# {record['name']}", "", f"Commit {record['commit']}, {record['date']}, seed {record['seed']}, "]
    lines[-1] += f"{record['device']}, torch {record['versions']['torch']}."  # type: ignore[index]
    if record["targets"]:
        lines += ["", "## Targets", "", *_table([dict(t) for t in record["targets"]])]  # type: ignore[attr-defined]
    titles = list(dict.fromkeys(str(row.get("table", "Figures")) for row in rows))
    for title in titles:
        chosen = [row for row in rows if str(row.get("table", "Figures")) == title]
        lines += ["", f"## {title}", "", *_table([{k: v for k, v in row.items() if k != "table"} for row in chosen])]
    return "\n".join(lines) + "\n"


def commit() -> str:
    """Return the commit of the working tree, with `+` when files differ from it; `unknown` outside git."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True)
        state = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=HERE, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the block: wall and CPU seconds, and the peak resident memory of the process while it ran."""
    cost = Cost()
    _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        cost.peak_mib = _peak_mib()


def _reset_peak() -> None:
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")  # 5 resets the peak resident size (proc(5))


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return float(fields["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _table(rows: Sequence[Row]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(c, "")) for c in columns) + " |" for row in rows]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")
