"""Draws a results file: CPU per token by system, and delivery latency against load."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator

Results = dict[str, Any]
OURS, THEIRS = "#0b6e4f", "#8a8f98"
LIMIT_MS = 20


def cpu(results: Results, target: Path) -> None:
    """Bars: microseconds of processor time per paced token."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in results["rounds"]:
        if row["phase"] == "paced" and row["streams"] == 50 and row["cpu_us_per_token"]:
            found[row["system"]].append(row["cpu_us_per_token"])
    order = sorted(found, key=lambda name: median(found[name]))
    middles = [median(found[name]) for name in order]
    errors = [
        [m - min(found[name]) for name, m in zip(order, middles, strict=True)],
        [max(found[name]) - m for name, m in zip(order, middles, strict=True)],
    ]
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(order) + 1))
    colours = [OURS if name.startswith("relay") else THEIRS for name in order]
    bars = axes.barh(order, middles, xerr=errors, color=colours, capsize=3)
    axes.bar_label(bars, fmt="%.0f", label_type="center", color="white", fontsize=8)
    axes.set(xscale="log", xlim=(10, max(middles) * 1.3))
    _plain(axes.xaxis, [10, 20, 50, 100, 200, 500])
    axes.set_xlabel("CPU µs a token, 50 paced streams (log scale; less is better)")
    axes.invert_yaxis()
    _save(figure, target)


def latency(results: Results, target: Path) -> None:
    """Lines: the 99th percentile of delivery against the number of paced streams."""
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for step in results["ladder"]:
        if step["delivery_p99_ms"] >= 0:
            points[step["system"]][step["streams"]].append(step["delivery_p99_ms"])
    if not points:
        return
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, by_streams in points.items():
        streams = sorted(by_streams)
        middles = [median(by_streams[n]) for n in streams]
        axes.plot(streams, middles, marker="o", markersize=3, label=name)
    axes.axhline(LIMIT_MS, color="#c0392b", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log")
    _plain(axes.xaxis, [10, 20, 50, 100, 200, 500, 1000, 2000])
    _plain(axes.yaxis, [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500])
    axes.set_xlabel("paced streams at a time (a token each 20 ms)")
    axes.set_ylabel("delivery p99, ms")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, target)


def _plain(axis: Any, ticks: list[float]) -> None:
    """Plain numbers instead of powers of ten on a log scale."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter("{x:g}")


def _save(figure: Any, target: Path) -> None:
    for side in ("top", "right"):
        figure.axes[0].spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(target, bbox_inches="tight", metadata={"Date": None})
    print(target)


def main() -> None:
    """`plot.py RESULTS.json`: writes RESULTS-cpu.svg and RESULTS-latency.svg beside it."""
    source = Path(sys.argv[1])
    results = json.loads(source.read_text())
    cpu(results, source.with_name(f"{source.stem}-cpu.svg"))
    latency(results, source.with_name(f"{source.stem}-latency.svg"))


if __name__ == "__main__":
    main()
