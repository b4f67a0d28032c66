"""
How fast RPG is: ``python -m benchmarks.speed``.

Times RPG against SB3's SAC on this machine and prints a table of ratios; ``--smoke`` runs every measurement once, to see
that it works. Sections: ``update`` (one gradient update, and its share of the machine's matrix-product peak), ``profile``
(where its time goes), ``compile`` (what ``torch.compile`` would gain), ``learn`` (environment steps a second on
HalfCheetah-v5), ``predict``, ``buffer``, ``startup``, ``scaling`` (an update against the sizes that it depends on). Leave the
machine alone meanwhile. ``--sections cuda`` times an update on a CUDA device.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch as th

from benchmarks.bootstrap import ROOT
from benchmarks.provenance import environment, origin
from benchmarks.runs import add_to_json
from benchmarks.speed_measures import SECTIONS, Row

RESULTS = ROOT / "benchmarks" / "results" / "speed"
CUDA = "cuda"
ON_CPU = [section for section in SECTIONS if section != CUDA]


def format_row(line: Row) -> str:
    """
    :param line: a measurement
    :return: as printed
    """
    text = f"{line.section:<8} {line.case:<75} {line.value:>10.3g} {line.unit:<8}"
    if not np.isnan(line.ratio):
        text += f" {line.ratio:6.2f} x {line.baseline}"
    if not np.isnan(line.ratio_low):
        text += f" ({line.ratio_low:.2f} to {line.ratio_high:.2f})"
    return text


def main(arguments: list[str] | None = None) -> None:
    """
    :param arguments: command line
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n\n")[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=ON_CPU, help="what to measure")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--smoke", action="store_true", help="every measurement once and small; writes nothing")
    options = parser.parse_args(arguments)
    th.set_num_threads(options.threads)
    start = time.monotonic()
    lines = []
    for section in options.sections:
        for line in SECTIONS[section](options.smoke):
            print(format_row(line), flush=True)
            lines.append(line)
    minutes = round((time.monotonic() - start) / 60, 1)
    details = {**environment(), **origin(), "threads": options.threads, "minutes": minutes}
    print(", ".join(f"{key} {value}" for key, value in details.items()))
    if not options.smoke:
        write(lines, details, CUDA if options.sections == [CUDA] else f"threads_{options.threads}")


def write(lines: list[Row], details: dict[str, Any], name: str) -> None:
    """
    :param lines: measurements; those of other sections in an earlier file are kept
    :param details: versions and machine that they were made with, and the minutes that all of them took
    :param name: of the files
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.csv"
    measured = {line.section for line in lines}
    kept: list[dict[str, Any]] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            kept = [old for old in csv.DictReader(file) if old["section"] not in measured]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(kept)
        writer.writerows(asdict(line) for line in lines)
    add_to_json(RESULTS / f"{name}.json", dict.fromkeys(sorted(measured), details))


if __name__ == "__main__":
    main()
