#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws benchmark results as SVG.

    Benchmarks/plot.py bars RESULTS.json OUT.svg [--work download] [--stacks Tern,quinn]
        one panel a figure, one bar a stack, from what Benchmarks/Peers/run writes
    Benchmarks/plot.py lines POINTS.json OUT.svg
        CPU per packet against the number of connections, from a list such as
        [{"stack": "Tern", "connections": 100, "cpuMicrosecondsPerPacket": 1.23}, …]

Plain SVG with colours for light and for dark surroundings, after what the reader prefers.
"""

import argparse
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

WIDTH = 860
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
#: Light and dark; chosen to be told apart by the colour-blind, too (after Okabe and Ito). The first is Tern's.
COLOURS = [
    ("#0072b2", "#56a8e0"),
    ("#d55e00", "#f0873c"),
    ("#009e73", "#3cc79c"),
    ("#a0508a", "#d890c2"),
    ("#7a6a00", "#d9c24a"),
    ("#5b6470", "#a7b0bb"),
]
SURFACES = {"light": ("#fbfbfa", "#1f2328", "#5c636b", "#d9dcdf"), "dark": ("#16191d", "#e9ecef", "#a3abb3", "#363b41")}

UNITS = {
    "gigabitsPerSecond": ("Throughput", "Gbit/s, more is better"),
    "handshakesPerSecond": ("Handshakes", "a second, more is better"),
    "requestsPerSecond": ("Requests", "a second, more is better"),
    "p50": ("Latency, median", "µs, less is better"),
    "p99": ("Latency, 99th percentile", "µs, less is better"),
}
CPU_UNITS = {"s/GB": "seconds a GB", "ms each": "ms each", "µs each": "µs each"}


def style() -> str:
    def rules(surface: str, index: int) -> str:
        background, text, faint, grid = SURFACES[surface]
        series = "".join(
            f".f{number}{{fill:{pair[index]}}}.s{number}{{stroke:{pair[index]}}}" for number, pair in enumerate(COLOURS)
        )
        return (
            f".surface{{fill:{background}}}text{{fill:{text}}}.faint{{fill:{faint}}}"
            f".grid{{stroke:{grid}}}.axis{{stroke:{faint}}}{series}"
        )

    return (
        f"<style>text{{font-family:{FONT};font-size:14px}}.title{{font-size:18px;font-weight:600}}"
        ".heading{font-size:15px;font-weight:600}.small{font-size:12.5px}.number{font-variant-numeric:tabular-nums}"
        f".line{{fill:none;stroke-width:2.5;stroke-linejoin:round;stroke-linecap:round}}{rules('light', 0)}"
        f"@media (prefers-color-scheme:dark){{{rules('dark', 1)}}}</style>"
    )


class Drawing:
    def __init__(self, description: str) -> None:
        self.description = description
        self.parts: list[str] = []

    def text(self, x: float, y: float, content: str, kind: str = "", anchor: str = "start", turn: bool = False) -> None:
        turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{turned}>{escape(content)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def bar(self, x: float, y: float, width: float, height: float, series: int) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" rx="2" '
            f'class="f{series}"/>'
        )

    def document(self, height: float) -> str:
        label = escape(self.description, {'"': "&quot;"})
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" aria-label="{label}">\n<!-- SPDX-License-Identifier: Apache-2.0 -->\n'
            f'{style()}\n<rect class="surface" width="{WIDTH}" height="{height:.0f}" rx="6"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def ticks(most: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to the first that is no less than `most`."""
    if most <= 0:
        return [0, 1]
    magnitude = 10 ** math.floor(math.log10(most / about))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude * about >= most)
    return [index * step for index in range(math.ceil(most / step - 1e-9) + 1)]


def label_of(number: float) -> str:
    return f"{number:,.3f}".rstrip("0").rstrip(".") if number % 1 else f"{number:,.0f}"


def titles_of(figure: dict) -> tuple[str, str]:
    if figure["key"] in UNITS:
        return UNITS[figure["key"]]
    role, _, unit = figure["title"].partition(" CPU ")
    return f"{role.capitalize()}'s CPU time", f"{CPU_UNITS.get(unit, unit)}, less is better"


# Bars


def select_figures(results: dict, work: str, stacks: list[str] | None) -> tuple[dict, list[str], list[dict]]:
    """The work that ran in pairs, the stacks to show, and the figures with each stack's median."""
    # Stacks that are measured by themselves have their names at the end of the key: `download-qh3`.
    matching = [w for w in results["workloads"] if w["key"] == work]
    if stacks:
        matching += [w for w in results["workloads"] for name in stacks if w["key"] == f"{work}-{name}"]
    if not matching:
        known = ", ".join(w["key"] for w in results["workloads"])
        sys.exit(f"Benchmarks/plot.py: no work {work} in the results, which have {known}")
    names = stacks or matching[0]["stacks"]
    figures = []
    for figure in matching[0]["figures"]:
        medians = {}
        for workload in matching:
            medians |= next(f["medians"] for f in workload["figures"] if f["key"] == figure["key"])
        if any(medians.get(name) is not None for name in names):
            figures.append({**figure, "medians": medians})
    return matching[0], names, figures


def bar_chart(results: dict, work: str = "download", stacks: list[str] | None = None) -> str:
    paired, names, figures = select_figures(results, work, stacks)
    title = paired["title"]
    drawing = Drawing(f"{title}: {', '.join(names)}")
    left, right, bar, gap = 110, WIDTH - 90, 24, 9
    drawing.text(24, 36, title[:1].upper() + title[1:], "title")
    machine = results.get("machine", {})
    subtitle = f"loopback, medians of {results.get('pairs', '?')} runs in turn"
    if once := [name for name in names if name not in paired["stacks"]]:
        subtitle += f" ({', '.join(once)}: once, with less data)"
    drawing.text(24, 58, f"{subtitle} · {machine.get('processor', '')}", "faint small")
    y = 92.0
    for figure in figures:
        heading, unit = titles_of(figure)
        drawing.text(left, y, heading, "heading")
        drawing.text(right, y, unit, "faint small", "end")
        top = y + 12
        bottom = top + len(names) * (bar + gap) + gap
        known = [figure["medians"][name] for name in names if figure["medians"].get(name) is not None]
        scale = ticks(max(known))
        for tick in scale:
            x = left + (right - left) * tick / scale[-1]
            drawing.line(x, top, x, bottom, "axis" if tick == 0 else "grid")
            drawing.text(x, bottom + 17, label_of(tick), "faint small number", "middle")
        for series, name in enumerate(names):
            value = figure["medians"].get(name)
            row = top + gap + series * (bar + gap)
            drawing.text(left - 10, row + bar / 2 + 5, name, "", "end")
            if value is None:
                drawing.text(left + 8, row + bar / 2 + 5, "not measured", "faint small")
                continue
            length = (right - left) * value / scale[-1]
            drawing.bar(left, row, length, bar, series % len(COLOURS))
            drawing.text(left + length + 7, row + bar / 2 + 5, f"{value:,.{figure['places']}f}", "number")
        y = bottom + 58
    return drawing.document(y - 20)


# Lines


def line_chart(points: list[dict]) -> str:
    """CPU time per packet against connections, on a logarithmic axis from 1 to 10,000 or to what there is."""
    names = list(dict.fromkeys(point["stack"] for point in points))
    drawing = Drawing(f"CPU time per packet against the number of connections: {', '.join(names)}")
    left, right, top, bottom = 84, WIDTH - 120, 92, 400
    decades = max(4, math.ceil(math.log10(max(point["connections"] for point in points)) - 1e-9))
    scale = ticks(max(point["cpuMicrosecondsPerPacket"] for point in points))

    def across(connections: float) -> float:
        return left + (right - left) * math.log10(connections) / decades

    def up(microseconds: float) -> float:
        return bottom - (bottom - top) * microseconds / scale[-1]

    drawing.text(24, 36, "CPU time per packet against the number of connections", "title")
    drawing.text(24, 58, "whole process, loopback; less is better, and flat is best", "faint small")
    for tick in scale:
        drawing.line(left, up(tick), right, up(tick), "axis" if tick == 0 else "grid")
        drawing.text(left - 10, up(tick) + 5, label_of(tick), "faint small number", "end")
    for decade in range(decades + 1):
        x = across(10**decade)
        drawing.line(x, top, x, bottom + 6, "grid")
        drawing.text(x, bottom + 23, f"{10**decade:,}", "faint small number", "middle")
    drawing.text((left + right) / 2, bottom + 48, "connections (logarithmic)", "", "middle")
    drawing.text(30, (top + bottom) / 2, "CPU time per packet, µs", "", "middle", turn=True)

    # Names stand at the lines' ends, moved apart where they would overlap.
    ends = []
    for series, name in enumerate(names):
        own = sorted((p["connections"], p["cpuMicrosecondsPerPacket"]) for p in points if p["stack"] == name)
        places = [(across(connections), up(microseconds)) for connections, microseconds in own]
        colour = series % len(COLOURS)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawing.parts.append(f'<polyline points="{path}" class="line s{colour}"/>')
        for (x, y), (connections, microseconds) in zip(places, own):
            told = escape(f"{name}, {connections:,} connections: {label_of(microseconds)} µs")
            drawing.parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="f{colour}"><title>{told}</title></circle>'
            )
        ends.append((places[-1][1], places[-1][0], name, colour))
    previous = -math.inf
    for y, x, name, colour in sorted(ends):
        y = max(y, previous + 18)
        previous = y
        drawing.text(x + 11, y + 5, name, f"heading f{colour}")
    return drawing.document(bottom + 72)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    charts = parser.add_subparsers(dest="chart", required=True)
    bars = charts.add_parser("bars")
    lines = charts.add_parser("lines")
    for chart in (bars, lines):
        chart.add_argument("source", type=pathlib.Path)
        chart.add_argument("target", type=pathlib.Path)
    bars.add_argument("--work", default="download", help="the work's key in the results (download)")
    bars.add_argument("--stacks", type=lambda text: text.split(","), help="in this order (those run in pairs)")
    options = parser.parse_args()
    source = json.loads(options.source.read_text())
    if options.chart == "bars":
        drawn = bar_chart(source, options.work, options.stacks)
    else:
        drawn = line_chart(source)
    options.target.write_text(drawn)


if __name__ == "__main__":
    main()
