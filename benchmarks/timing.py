"""Timing of pieces of code against each other: in turn, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """
    Seconds of each repeat of one piece of code, and of the baseline's run beside it.

    :param seconds: (repeats,)
    :param baseline_seconds: (repeats,)
    """

    seconds: np.ndarray
    baseline_seconds: np.ndarray

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return float(np.median(self.seconds))

    def ratio(self, quantile: float = 0.5) -> float:
        """
        :param quantile: 0.5: the median
        :return: that quantile of the repeats' own ratios to the baseline
        """
        return float(np.quantile(self.seconds / self.baseline_seconds, quantile))


def time_in_turn(
    pieces: Mapping[str, Callable[[], object]], baseline: str, repeats: int, warmup: int = 3
) -> dict[str, Timing]:
    """
    Time each piece once a repeat, in the order given.

    :param pieces: code by name
    :param baseline: name of the piece that the others are compared with
    :param repeats: number of measurements of each
    :param warmup: rounds that are not measured
    :return: timings by name
    """
    seconds: dict[str, list[float]] = {name: [] for name in pieces}
    gc.collect()
    gc.disable()
    try:
        for repeat in range(warmup + repeats):
            for name, piece in pieces.items():
                start = time.perf_counter()
                piece()
                elapsed = time.perf_counter() - start
                if repeat >= warmup:
                    seconds[name].append(elapsed)
    finally:
        gc.enable()
    reference = np.array(seconds[baseline])
    return {name: Timing(np.array(values), reference) for name, values in seconds.items()}
