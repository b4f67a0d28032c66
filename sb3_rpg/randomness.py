"""States of all random generators that training draws from, so that a run can go on as if it had never stopped."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th

RandomState = dict[str, Any]


def get_random_state() -> RandomState:
    """
    :return: states of Python's, NumPy's and torch's global generators
    """
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        # As arrays: SB3 pickles attributes, and tensors would come back on the device that they were saved from
        "torch": th.get_rng_state().numpy(),
        "cuda": [state.cpu().numpy() for state in th.cuda.get_rng_state_all()] if th.cuda.is_available() else [],
    }


def set_random_state(state: RandomState) -> None:
    """
    :param state: from :func:`get_random_state`; the states of CUDA devices are left out where their number differs
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    th.set_rng_state(th.from_numpy(state["torch"].copy()))
    if th.cuda.is_available() and len(state["cuda"]) == th.cuda.device_count():
        th.cuda.set_rng_state_all([th.from_numpy(array.copy()) for array in state["cuda"]])


class SeparateStream:
    """
    A stream of torch's randomness beside the global one, and of NumPy's if wanted.

    What is drawn within :meth:`active` neither disturbs the global streams nor depends on them.

    :param device: device that is drawn on
    :param numpy: whether NumPy's global generator, which replay buffers draw from, is kept apart too
    :param number: which of the streams that belong to a seed
    """

    def __init__(self, device: th.device, numpy: bool = False, number: int = 0):
        self._device = device if device.type in ("cuda", "mps") else th.device("cpu")
        seed = (th.initial_seed() + 1 + number) % 2**63
        generator = th.Generator(self._device).manual_seed(seed)
        self._state = generator.get_state()
        self._numpy_state = np.random.RandomState(seed % 2**32).get_state() if numpy else None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream within the context."""
        outside = self._get()
        self._set(self._state)
        if self._numpy_state is not None:
            numpy_outside = np.random.get_state()
            np.random.set_state(self._numpy_state)
        try:
            yield
        finally:
            self._state = self._get()
            self._set(outside)
            if self._numpy_state is not None:
                self._numpy_state = np.random.get_state()
                np.random.set_state(numpy_outside)

    def _get(self) -> th.Tensor:
        if self._device.type == "cuda":
            return th.cuda.get_rng_state(self._device)
        return th.mps.get_rng_state() if self._device.type == "mps" else th.get_rng_state()

    def _set(self, state: th.Tensor) -> None:
        if self._device.type == "cuda":
            th.cuda.set_rng_state(state, self._device)
        elif self._device.type == "mps":
            th.mps.set_rng_state(state)
        else:
            th.set_rng_state(state)
