"""The callback that measures, writes checkpoints and heeds requests to stop while a run learns."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.checkpoint import RunState, save_checkpoint
from benchmarks.measures import Measure
from benchmarks.provenance import peak_memory
from benchmarks.runs import CLOCKS, Row, RunFolder, write_json

# Seconds between two looks at the clock's consequences: progress file, request to stop
POLL_SECONDS = 1.0
# Window that the speed is averaged over
SPEED_SECONDS = 60.0


class Stopped(Exception):
    """A request to stop was heeded; a checkpoint is there."""


class StopRequest:
    """
    Whether the run should write a checkpoint and end: asked by a signal, or by the file ``stop`` of its folder.

    :param folder: the run's files
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.signalled = False

    def signal(self, *_: Any) -> None:
        """For ``signal.signal``."""
        self.signalled = True

    def is_set(self) -> bool:
        """
        :return: whether to stop
        """
        return self.signalled or self._folder.stop.exists()


class Recorder(BaseCallback):
    """
    Measures at fixed steps, so that the curves of all algorithms share their steps, however many environments they step.

    :param folder: the run's files
    :param state: the run's state, changed as training goes on
    :param measures: what is measured
    :param budget: environment steps of the run
    :param stop: asked between two rollouts
    :param checkpoint_every: seconds between two checkpoints
    """

    def __init__(
        self,
        folder: RunFolder,
        state: RunState,
        measures: Sequence[Measure],
        budget: int,
        stop: StopRequest,
        checkpoint_every: float,
    ) -> None:
        super().__init__()
        self.folder, self.state, self.measures = folder, state, measures
        self.budget, self.stop, self.checkpoint_every = budget, stop, checkpoint_every
        # Counted from the end of the last session's time
        self._start = time.monotonic() - state.seconds
        self._cpu_start = time.process_time() - state.cpu_seconds
        self._last_checkpoint = self._last_poll = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()

    def _on_training_start(self) -> None:
        model = self.model
        # Its last rollout ends behind the budget, with an update that others do not have: the budget is measured within it
        self._overshoots = isinstance(model, OnPolicyAlgorithm) and self.budget % (model.n_steps * model.n_envs) > 0
        for measure in self.measures:
            if measure.metric.name not in self.state.next_due:
                self._record(measure, 0)
        self._write_progress()

    def _on_step(self) -> bool:
        for info, done in zip(self.locals["infos"], self.locals["dones"], strict=True):
            if "episode" in info:
                self.state.returns.append(float(info["episode"]["r"]))
                if done and "is_success" in info:
                    self.state.successes.append(float(info["is_success"]))
        for measure in self.measures:
            due, every = self.state.next_due[measure.metric.name], measure.metric.every
            if self.num_timesteps >= due and (due < self.budget or (due == self.budget and self._overshoots)):
                self._record(measure, max(due, min(self.num_timesteps // every * every, self.budget)))
        now = time.monotonic()
        if now - self._last_poll >= POLL_SECONDS:
            self._last_poll = now
            self._write_progress()
        return True

    def _on_rollout_start(self) -> None:
        # Between two rollouts every transition is stored and learned from: nothing is lost
        if self.stop.is_set():
            self._checkpoint()
            raise Stopped
        if time.monotonic() - self._last_checkpoint >= self.checkpoint_every:
            self._checkpoint()

    def finish(self) -> None:
        """Measure what the budget's end has not been measured of, and write all down."""
        for measure in self.measures:
            if not any(row.step == self.budget and row.metric == measure.metric.name for row in self.state.rows):
                self._record(measure, self.budget)
        self._update_clock()
        self.folder.write_rows(self.state.rows)
        self._write_progress()

    def _record(self, measure: Measure, step: int) -> None:
        self._record_clocks(step)
        start, cpu_start = time.monotonic(), time.process_time()
        values = measure(self.model, step)
        self.state.measuring_seconds += time.monotonic() - start
        self.state.measuring_cpu_seconds += time.process_time() - cpu_start
        if measure.metric.name in ("return", "success"):
            for name, collected in (("train_return", self.state.returns), ("train_success", self.state.successes)):
                if collected:
                    values[name] = sum(collected) / len(collected)
                    collected.clear()
        self.state.rows += [Row(name, step, value) for name, value in values.items()]
        if measure.histogram is not None:
            self.state.histograms[step] = measure.histogram
        following = step + measure.metric.every
        self.state.next_due[measure.metric.name] = min(following, self.budget) if step < self.budget else following
        self.folder.write_rows(self.state.rows)
        # The losses beside the metrics, for whoever wonders about a curve
        if step > 0 and isinstance(self.model, OffPolicyAlgorithm):
            self.model.dump_logs()

    def _record_clocks(self, step: int) -> None:
        """What training alone has taken, so that curves can be drawn over time."""
        if self.state.rows and self.state.rows[-1].step == step:
            return  # by the measurement before, at the same step
        self._update_clock()
        state = self.state
        clocks = (state.seconds - state.measuring_seconds, state.cpu_seconds - state.measuring_cpu_seconds)
        state.rows += [Row(name, step, value) for name, value in zip(CLOCKS, clocks, strict=True)]

    def _checkpoint(self) -> None:
        self._update_clock()
        save_checkpoint(self.folder.checkpoints, self.model, self.state)
        self._last_checkpoint = time.monotonic()

    def _update_clock(self) -> None:
        self.state.peak_memory = max(self.state.peak_memory, peak_memory())
        self.state.seconds = time.monotonic() - self._start
        self.state.cpu_seconds = time.process_time() - self._cpu_start

    def _write_progress(self) -> None:
        now = time.monotonic()
        self._recent.append((now, self.num_timesteps))
        while len(self._recent) > 2 and now - self._recent[0][0] > SPEED_SECONDS:
            self._recent.popleft()
        seconds, steps = (self._recent[-1][i] - self._recent[0][i] for i in (0, 1))
        names = [measure.metric.name for measure in self.measures]
        last = next((row for row in reversed(self.state.rows) if row.metric in names), None)
        progress = {
            "step": self.num_timesteps,
            "budget": self.budget,
            "fps": steps / seconds if seconds > 0 else None,
            "metric": last and last.metric,
            "value": last and last.value,
        }
        write_json(self.folder.progress, progress)
