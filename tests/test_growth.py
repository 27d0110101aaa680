"""The benchmark of growth: what it counts is right, and docs/scale.md shows what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import growth


def test_a_power_law_is_found() -> None:
    sizes = [10**4, 10**5, 10**6, 10**7]
    found = growth.fit(sizes, [5.0, *(2e-6 * n**1.1 for n in sizes[1:])])
    assert found["a"] == pytest.approx(2e-6)
    assert found["b"] == pytest.approx(1.1)
    assert found["r2"] == pytest.approx(1)


@pytest.mark.parametrize(("name", "classes", "size"), [
    ("plain", 10, 4 * (3 + 10)),  # seen, wrong, confidence, and the mean probabilities
    ("plain, loss elr", 10, 4 * (3 + 10 + 10)),  # and the targets
    ("dividemix", 100, 4 * (3 + 100 + 2)),  # and what each network holds to be clean
])  # fmt: skip
def test_bytes_of_a_sample(name: str, classes: int, size: int) -> None:
    assert growth.bytes_a_sample(*growth.STATE[name], classes) == size


def test_the_page_shows_what_was_measured() -> None:
    found = json.loads(growth.RESULT.read_text(encoding="utf-8"))
    assert found["sizes"][0] == 10**4
    assert found["sizes"][-1] == 10**7
    page = growth.PAGE.read_text(encoding="utf-8")
    assert growth.into_page(page, found) == page, "python benchmarks/growth.py --draw"
    assert growth.FIGURE.read_text(encoding="utf-8") == growth.picture(found)
    drawn = ET.fromstring(growth.picture(found))
    lines = [path for path in drawn.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "line"]
    assert len(lines) == 2 * len(found["steps"]), "a line and its place in the legend"


@pytest.mark.slow
def test_the_benchmark_at_a_small_size(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    script = str(Path(growth.__file__))
    subprocess.run(
        [sys.executable, script, "--most", "3.2e4", "--repeats", "1", "--out", str(out)], check=True, timeout=120
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["sizes"] == [10_000, 31_623]
    assert len(found["steps"]) >= 9
    assert all(one["seconds"][0] > 0 for one in found["steps"].values())
