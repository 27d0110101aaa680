"""How cost grows with the rows: bytes of state a sample, and the time of every step between two epochs.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--most 1e7] [--repeats 5]     # about ten minutes on one core
    python benchmarks/growth.py --draw                                           # table and curve from what is there

There is no network: losses, counts and predictions are made up. Each time is the median of repeats, of the processor's
clock, which a busy machine disturbs little (a checkpoint's by the wall: it waits for the disk); the fit a N^b is a line
through the logarithms from 10^5 rows on, where the fixed part has lost its weight. Results:
results/growth_cpu.json, the tables in docs/scale.md and docs/figures/growth.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unswayed import methods
from unswayed.batches import epoch_batches
from unswayed.checkpoint import write_state
from unswayed.data.columns import TensorColumn
from unswayed.machine import Place, buffers_of, describe, versions
from unswayed.method import Data, Info, Method
from unswayed.methods.dividemix import clean_probability
from unswayed.methods.plain import Plain
from unswayed.stats.dynamics import Dynamics
from unswayed.stats.label_wave import LabelWave
from unswayed.stats.rows import row_buffers
from unswayed.stats.semi import keep_both
from unswayed.stats.wrong_events import DynamicWeights
from unswayed.writing import write_json, write_text

ROOT = Path(__file__).parent.parent
RESULT, PAGE = ROOT / "results" / "growth_cpu.json", ROOT / "docs" / "scale.md"
FIGURE = ROOT / "docs" / "figures" / "growth.svg"
CLASSES, BATCH, FITTED_FROM = 6, 8192, 10**5  # with 7 classes 10^7 rows no longer keep their mean probabilities
START, END = "<!-- growth: benchmarks/growth.py -->", "<!-- end of growth -->"
STATE: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "plain, loss elr": ("plain", {"loss": "elr"}),
    "plain, loss sop": ("plain", {"loss": "sop"}),
    "co-teaching": ("co-teaching", {}),
    "ido": ("ido", {}),
    "dividemix": ("dividemix", {}),
    "elr+": ("elr+", {}),
    "sop+": ("sop+", {}),
    "disc": ("disc", {}),
    "sed": ("sed", {}),
    "unicon": ("unicon", {}),
    "promix": ("promix", {}),
    "lccn": ("lccn", {}),
}


class Net(nn.Module):
    """Next to nothing: what is counted is the state of the samples."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 4), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def bytes_a_sample(name: str, settings: dict[str, Any], classes: int) -> float:
    """State of one more sample: the difference of two sizes, so that what does not grow is left out."""
    few, many = (_state(methods.get(name)(lambda: Net(classes), Info(n, classes), **settings)) for n in (1000, 2000))
    return (many - few) / 1000


def _state(method: Method) -> int:
    rows = sum(value.nbytes for value in row_buffers(method).values())
    return rows + sum(p.nbytes for p in method.parameters())  # SOP learns its rows


def steps(n: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Every step between two epochs of `n` rows, ready to be timed."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    wrong = torch.rand(n, generator=generator) < 0.3
    losses = torch.rand(n, generator=generator) * 0.5 + wrong * 1.5
    counts = (torch.poisson(torch.where(wrong, 6.0, 0.7), generator=generator)).to(torch.int32)
    data = Data.of(TensorColumn(torch.zeros(n, 1)), labels)
    dynamics, wave, weights = Dynamics(n, CLASSES), LabelWave(n), DynamicWeights(CLASSES)
    logits, everybody = torch.randn(BATCH, CLASSES, generator=generator), torch.arange(n)
    method = Plain(lambda: Net(CLASSES), Info(n, CLASSES))
    method.dynamics.seen.fill_(10)
    method.dynamics.confidence.copy_(torch.rand(n, generator=generator) * 10)
    weights.fit(counts, labels)
    clean, place = torch.rand(n, generator=generator), Place(torch.device("cpu"))

    def order() -> object:
        batches = epoch_batches((data,), 128, ("stored",), {}, 0, place, epoch=0, progress=lambda part: part)
        return next(batches)

    def count() -> None:
        for start in range(0, n, BATCH):
            ids = everybody[start : start + BATCH]
            dynamics.update(logits[: len(ids)], labels[start : start + BATCH], ids)

    def select() -> Data:
        return data.rows(keep_both(clean > 0.5, clean))

    return {
        "order of an epoch": order,
        "counting wrong events": count,
        "changed predictions (IDO)": wave.end_epoch,
        "Beta mixtures, one a class (IDO)": lambda: weights.fit(counts, labels, rounds=2),
        "Gaussian mixture (DivideMix)": lambda: clean_probability(losses),
        "selection of rows": select,
        "copy of all rows (several processes)": lambda: buffers_of(method),
        "suspicion and its ranking": lambda: torch.as_tensor(method.suspicion()).argsort(descending=True),
        "checkpoint": lambda: write_state(folder / "state.safetensors", method.state_dict(), {}),
    }


def timed(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """The median of `repeats` times, in seconds, after one that does not count."""
    call()
    found = []
    for _ in range(repeats):
        start = clock()
        call()
        found.append(clock() - start)
    return statistics.median(found)


def fit(sizes: list[int], seconds: list[float]) -> dict[str, float]:
    """a and b of a N^b, and r^2, of the logarithms."""
    known = list(zip(sizes, seconds, strict=True))
    points = [(n, s) for n, s in known if n >= FITTED_FROM] if sizes[-1] > FITTED_FROM else known
    x, y = np.log([n for n, _ in points]), np.log([s for _, s in points])
    b, a = np.polyfit(x, y, 1)
    rest = float(((y - (a + b * x)) ** 2).sum())
    spread = float(((y - y.mean()) ** 2).sum())
    return {"a": math.exp(a), "b": float(b), "r2": 1 - rest / spread if spread else 1.0}


def measure(sizes: list[int], repeats: int) -> dict[str, Any]:
    """All of it, as it goes into the file."""
    seconds: dict[str, list[float]] = {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for name, call in steps(n, Path(folder)).items():
                clock = time.perf_counter if name == "checkpoint" else time.process_time
                seconds.setdefault(name, []).append(timed(call, repeats if n < 10**6 else 3, clock))
        print(f"{n:,} rows", flush=True)
    return {
        "sizes": sizes,
        "classes": CLASSES,
        "steps": {name: {"seconds": found, "fit": fit(sizes, found)} for name, found in seconds.items()},
        "bytes_a_sample": {
            name: {str(k): bytes_a_sample(method, settings, k) for k in (10, 100, 1000)}
            for name, (method, settings) in STATE.items()
        },
        "repeats": repeats,
        "fitted_from": FITTED_FROM,
        "versions": versions(),
        "machine": describe(),
    }


# ------------------------------------------------------------------------------------------------ shown


def markdown(found: dict[str, Any]) -> str:
    """The two tables of docs/scale.md."""
    shown = [n for n in found["sizes"] if math.log10(n) % 1 < 1e-9]
    lines = ["| step | " + " | ".join(f"{n:,}" for n in shown) + " | fit | r² |", "|---" * (len(shown) + 3) + "|"]
    for name, one in found["steps"].items():
        times = [_say(one["seconds"][found["sizes"].index(n)]) for n in shown]
        fitted = one["fit"]
        lines.append(f"| {name} | {' | '.join(times)} | {fitted['a']:.1e} N^{fitted['b']:.2f} | {fitted['r2']:.3f} |")
    lines += ["", "| state | 10 classes | 100 | 1000 |", "|---|---|---|---|"]
    for name, sizes in found["bytes_a_sample"].items():
        lines.append(f"| {name} | {' | '.join(f'{size:,.0f}' for size in sizes.values())} |")
    return "\n".join(lines)


def _say(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def picture(found: dict[str, Any]) -> str:
    """Seconds over rows, both in powers of ten."""
    left, top, wide, high, names = 56, 30, 420, 300, list(found["steps"])
    low, top_power = -5, 2
    first, last = math.log10(found["sizes"][0]), math.log10(found["sizes"][-1])

    def at(n: float, s: float) -> tuple[float, float]:
        x = left + wide * (math.log10(n) - first) / max(last - first, 1e-9)
        return x, top + high * (top_power - max(low, math.log10(s))) / (top_power - low)

    parts = [f'<rect class="frame" x="{left}" y="{top}" width="{wide}" height="{high}"/>']
    for power in range(low, top_power + 1):
        y = at(found["sizes"][0], 10.0**power)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{wide}"/><text x="8" y="{y + 4:.1f}">10^{power} s</text>')
    for n in found["sizes"]:
        if math.log10(n) % 1 < 1e-9:
            x = at(n, 1.0)[0]
            parts.append(f'<text x="{x - 14:.1f}" y="{top + high + 18}">10^{math.log10(n):.0f}</text>')
    for i, name in enumerate(names):
        places = [at(n, s) for n, s in zip(found["sizes"], found["steps"][name]["seconds"], strict=True)]
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        look = f'stroke="hsl({i * 360 // len(names)} 65% 45%)" stroke-dasharray="{("none", "6 3", "2 3")[i % 3]}"'
        y = top + 14 + 22 * i
        parts.append(f'<path class="line" {look} d="{d}"/><path class="line" {look} d="M{left + wide + 16} {y}h26"/>')
        parts.append(
            f'<text x="{left + wide + 50}" y="{y + 4}">{name}, N^{found["steps"][name]["fit"]["b"]:.2f}</text>'
        )
    style = (
        "text{font:12px sans-serif;fill:#1d1c1a}.frame{fill:none;stroke:#8a857c}.grid{stroke:#cfcac0}"
        ".line{fill:none;stroke-width:2}.ground{fill:#faf9f6}"
        "@media(prefers-color-scheme:dark){text{fill:#ebeae6}.ground{fill:#131416}.grid{stroke:#33363b}}"
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 370" role="img">'
        "<title>Time of every step between two epochs over the number of rows</title>"
        f'<style>{style}</style><rect class="ground" width="800" height="370"/>{"".join(parts)}'
        f'<text x="{left + wide // 2 - 14}" y="{top + high + 36}">rows</text></svg>\n'
    )


def into_page(page: str, found: dict[str, Any]) -> str:
    """The page with its tables renewed."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n\n{markdown(found)}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=1e7)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    if not asked.draw:
        sizes = [round(10 ** (power / 2)) for power in range(8, round(2 * math.log10(asked.most)) + 1)]
        write_json(asked.out, measure(sizes, asked.repeats))
    found = json.loads(asked.out.read_text(encoding="utf-8"))
    if asked.out == RESULT:
        write_text(FIGURE, picture(found))
        write_text(PAGE, into_page(PAGE.read_text(encoding="utf-8"), found))
    print(markdown(found))


if __name__ == "__main__":
    main()
