"""What is logged, collected without waiting for the device."""

from collections.abc import Mapping

import torch as th
from stable_baselines3.common.logger import Logger


class Metrics:
    """
    Sums 0-d tensors on their device; on a GPU they become numbers only when SB3 dumps its log, so that no update waits for it.
    A sum over updates is logged as its mean since the last dump.
    """

    def __init__(self) -> None:
        self._sums: dict[str, th.Tensor | float] = {}
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def add(self, values: Mapping[str, th.Tensor | float], prefix: str = "train") -> None:
        """
        :param values: 0-d tensors or numbers by name
        :param prefix: section of the log
        """
        for name, value in values.items():
            key = f"{prefix}/{name}"
            self._sums[key] = self._sums.get(key, 0.0) + (value.detach() if isinstance(value, th.Tensor) else value)
            self._counts[key] = self._counts.get(key, 0) + 1

    def add_time(self, name: str, seconds: float) -> None:
        """
        :param name: part of the training loop
        :param seconds: wall-clock time spent in it
        """
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def record_means(self, logger: Logger) -> None:
        """
        Hand the means to SB3's logger, which takes the mean of them until it is dumped.

        :param logger: the model's logger
        """
        for key, total in self._sums.items():
            logger.record_mean(key, float(total) / self._counts[key])
        self._sums, self._counts = {}, {}

    def record(self, logger: Logger) -> None:
        """
        Hand the means, and each part's share of the time, to SB3's logger, and start anew.

        :param logger: the model's logger
        """
        self.record_means(logger)
        total_seconds = sum(self._seconds.values())
        for name, seconds in self._seconds.items():
            logger.record(f"time/share_{name}", seconds / max(total_seconds, 1e-9))
        self._seconds = {}
