"""Files of replay buffers: they hold what is stored, and a loaded buffer goes on where the saved one was."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.save_util import load_from_pkl, save_to_pkl

from sb3_rpg.buffers import LatentBufferMixin, LatentReplayBuffer
from tests.collector import Collector, check_segments, filled, labels


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_saved_and_loaded_buffers_go_on_as_if_nothing_happened(kind: str, tmp_path: Path) -> None:
    collector = filled(7, kind=kind)
    save_to_pkl(tmp_path / "buffer.pkl", collector.buffer)
    loaded: LatentBufferMixin = load_from_pkl(tmp_path / "buffer.pkl")
    again = pickle.loads(pickle.dumps(collector.buffer))
    for buffer in (loaded, again):
        copy = filled(7, kind=kind)
        copy.buffer = buffer
        for _ in range(9):
            copy.step()
        assert check_segments(copy, buffer.sample_segments(400, 3), 3) == set(copy.stored)
        assert set(labels(buffer.sample_starts(100))) == {s for s in copy.stored if s[2] == 0}


def contents(buffer: LatentBufferMixin) -> dict[str, Any]:
    state = {name: value for name, value in vars(buffer).items() if name != "start_index"}
    return {**state, "starts": buffer.start_index.sample(300).tolist()}


@pytest.mark.parametrize("kind", ["vector", "dict"])
@pytest.mark.parametrize("steps", [0, 7, 10, 27])
def test_files_hold_what_is_stored_and_loaded_buffers_have_the_room_of_the_others(kind: str, steps: int) -> None:
    collector = Collector(10, [(4, 3), (5,)], kind)
    for _ in range(steps):
        collector.step()
    loaded: LatentBufferMixin = pickle.loads(pickle.dumps(collector.buffer))
    np.random.seed(0)
    expected = contents(collector.buffer)
    np.random.seed(0)
    np.testing.assert_equal(contents(loaded), expected)
    large = Collector(200_000, [(4, 3), (5,)], kind)
    for _ in range(7):
        large.step()
    assert len(pickle.dumps(large.buffer)) < 10_000
    assert pickle.loads(pickle.dumps(large.buffer)).latents.shape == (200_000, 2, 2)
    assert large.buffer.latents.shape == (200_000, 2, 2)


def test_files_of_earlier_versions_are_loaded() -> None:
    collector = filled(7)
    buffer, index = collector.buffer, collector.buffer.start_index
    old_index = index.__class__.__new__(index.__class__)
    old_index.__setstate__(dict(vars(index)))
    old = LatentReplayBuffer.__new__(LatentReplayBuffer)
    old.__setstate__({**vars(buffer), "start_index": old_index})
    np.random.seed(0)
    expected = contents(buffer)
    np.random.seed(0)
    np.testing.assert_equal(contents(old), expected)


def test_loading_ends_no_episode_beside_one_that_has_ended() -> None:
    collector = Collector(20, [(3,), (9,)])
    for _ in range(3):
        collector.step()
    # What the environments show: the first a new episode, the second goes on
    collector.buffer.after_loading(np.array([[0, 1, 0], [1, 0, 3]], dtype=np.float32))
    for _ in range(2):
        collector.step()
    assert check_segments(collector, collector.buffer.sample_segments(200, 3), 3) == set(collector.stored)
    collector.buffer.after_loading(np.zeros((2, 3), dtype=np.float32))
    collector.step()
    assert collector.buffer.episode_starts[5].all()
