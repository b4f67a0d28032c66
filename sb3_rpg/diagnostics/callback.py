"""Watches a run for the known ways of going wrong, beside training and without any effect on it."""

import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_rpg.diagnostics.detectors import FAILURES, Detector, Failure, TrainingWarning
from sb3_rpg.diagnostics.measures import progress
from sb3_rpg.diagnostics.probe import measure
from sb3_rpg.randomness import SeparateStream

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG

#: SB3's tables for the eye, which some forty more lines would not make clearer
CONSOLE = ("stdout", "log")


class EpisodeReturns:
    """
    Undiscounted returns of the finished episodes of all environments, in order.

    :param n_envs: number of environments
    """

    def __init__(self, n_envs: int):
        self.finished: list[float] = []
        self._running = np.zeros(n_envs)

    def __len__(self) -> int:
        return len(self._running)

    def update(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """
        :param rewards: of one vector step, as the environment gave them, (n_envs,)
        :param dones: True where an episode ended with it, (n_envs,)
        """
        self._running += rewards
        self.finished.extend(self._running[dones].tolist())
        self._running[dones] = 0.0

    def restart(self, starts: np.ndarray) -> None:
        """
        :param starts: True where an episode begins, which may follow a reset in the middle of one, (n_envs,)
        """
        self._running[starts] = 0.0

    def progress(self) -> float:
        """
        :return: :func:`~sb3_rpg.diagnostics.measures.progress` over the later half of the run's episodes
        """
        return progress(self.finished[len(self.finished) // 2 :])


class DiagnosticsCallback(BaseCallback):
    """
    Measures what tells that training goes wrong, logs it as ``diagnostics/...``, and warns once of each failure
    (:class:`~sb3_rpg.diagnostics.TrainingWarning`), with the argument to change.

    RPG adds one to ``learn()`` by itself unless it was made with ``diagnostics=False``, the same one to each ``learn()`` that
    goes on. To change an argument, pass one among your callbacks. It draws from random streams of its own and changes no
    network: a run is the same, bit for bit, with and without it.

    :param every: updates of the world model between two measurements, so that their share of the time does not depend on how
        often is trained
    :param min_updates: updates of the world model before anything is judged: a healthy run looks sick at first
    :param failures: what to watch for
    :param verbose: as for every SB3 callback
    :raises ValueError: if ``every`` is below 1
    """

    model: "RPG"

    def __init__(self, every: int = 250, min_updates: int = 1000, failures: Sequence[Failure] = FAILURES, verbose: int = 0):
        super().__init__(verbose)
        if every < 1:
            raise ValueError(f"`every` must be at least 1, got {every}; RPG(..., diagnostics=False) switches diagnostics off")
        self.every, self.min_updates, self.failures = every, min_updates, tuple(failures)
        self._forget()

    def _forget(self) -> None:
        self.detectors = [Detector(failure, self.min_updates) for failure in self.failures]
        #: kinds of the failures that were warned of
        self.warned: set[str] = set()
        #: environment steps, and what was measured at them, since the run's beginning
        self.history: list[tuple[int, dict[str, float]]] = []
        self._returns = EpisodeReturns(0)

    def _init_callback(self) -> None:
        from sb3_rpg.rpg import RPG

        if not isinstance(self.model, RPG):
            raise ValueError(f"DiagnosticsCallback knows how RPG goes wrong; this is {type(self.model).__name__}")

    def _on_training_start(self) -> None:
        self._stream = SeparateStream(self.model.device, numpy=True)
        if self.model.num_timesteps == 0:
            self._forget()
        if len(self._returns) != self.model.n_envs:
            self._returns = EpisodeReturns(self.model.n_envs)
        assert self.model._last_episode_starts is not None
        self._returns.restart(self.model._last_episode_starts)
        self._last = self._due_before(self.model._n_model_updates)

    def _due_before(self, n_updates: int) -> int:
        # At multiples: a learn() of few updates, one of many, must not begin to count anew
        return n_updates - n_updates % self.every

    def _on_step(self) -> bool:
        normalizer = self.model.get_vec_normalize_env()
        rewards = self.locals["rewards"] if normalizer is None else normalizer.get_original_reward()
        self._returns.update(rewards, self.locals["dones"])
        return True

    def _on_training_end(self) -> None:
        # What learn() knew last, the replay buffer among it, must not live as long as the model
        self.locals, self.globals = {}, {}

    def _on_rollout_end(self) -> None:
        # All that was collected is stored, and the world model has learned from it
        n_updates = self.model._n_model_updates
        if n_updates - self._last < self.every:
            return
        self._last = self._due_before(n_updates)
        start = time.perf_counter()
        with self._stream.active():
            measured = {**measure(self.model), "return_progress": self._returns.progress()}
        if "information" in measured:
            # Unknown at first, which is not judged
            before = self.history[-4][1]["information"] if len(self.history) >= 4 else np.nan
            measured["information_rise"] = measured["information"] - before
        self._judge(measured, n_updates)
        self.model.metrics.add_time("diagnostics", time.perf_counter() - start)

    def _judge(self, measured: dict[str, float], n_updates: int) -> None:
        self.history.append((self.num_timesteps, measured))
        for name, value in measured.items():
            if not np.isnan(value):
                self.logger.record(f"diagnostics/{name}", value, exclude=CONSOLE)
        for detector in self.detectors:
            kind, raised = detector.failure.kind, detector.update(measured, n_updates)
            self.logger.record(f"diagnostics/alarm_{kind}", float(detector.active), exclude=CONSOLE)
            if raised and kind not in self.warned:
                self.warned.add(kind)
                text = f"{detector.explain(measured)} (step {self.num_timesteps}; see docs/diagnosis.md)"
                warnings.warn(text, TrainingWarning, stacklevel=2)
