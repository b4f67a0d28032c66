"""What :mod:`benchmarks.speed` times: models of a given size on an environment that costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch.utils.flop_counter import FlopCounterMode

from sb3_rpg import RPG, fused
from sb3_rpg.batches import PolicyBatch
from sb3_rpg.updates import update_actor, update_world_model

#: sizes of the maze: Table 1 of the paper
OBS_DIM, ACTION_DIM, BATCH = 28, 2, 512


class NoiseEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    Uniform observations, no reward: there is nothing to compute but the algorithm.

    :param obs_dim: observation values
    :param action_dim: action values
    :param length: steps of an episode
    """

    def __init__(self, obs_dim: int = OBS_DIM, action_dim: int = ACTION_DIM, length: int = 50):
        self.observation_space = spaces.Box(-1.0, 1.0, (obs_dim,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)
        self.length = length

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1.0, 1.0, self.observation_space.shape).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observe(), 0.0, False, self.steps >= self.length, {}


def filler(smoke: bool) -> Callable[..., Any]:
    """
    :param smoke: whether a few transitions will do
    :return: makes a model of an algorithm, with arguments of its own, whose replay buffer holds something to train from
    """
    n_steps = 120 if smoke else 1500

    def filled(algorithm: type[OffPolicyAlgorithm], obs_dim: int = OBS_DIM, **kwargs: Any) -> Any:
        arguments = {"batch_size": BATCH, "seed": 0, "device": "cpu", "buffer_size": 100_000, **kwargs}
        return algorithm("MlpPolicy", NoiseEnv(obs_dim), **{**arguments, "learning_starts": n_steps + 50}).learn(n_steps)

    return filled


def update(model: OffPolicyAlgorithm, n_updates: int = 2) -> Callable[[], None]:
    """
    :param model: with a filled replay buffer
    :param n_updates: how many; two hold one of the actor where it learns at every second
    :return: trains it; RPG: bonus, world model, actor, posterior, alpha
    """
    return lambda: model.train(n_updates, model.batch_size)


def waited_for(piece: Callable[[], object]) -> Callable[[], None]:
    """
    :param piece: work for a CUDA device
    :return: does it, and waits until it is done
    """

    def run() -> None:
        piece()
        th.cuda.synchronize()

    return run


def captured_update(model: RPG) -> Callable[[], None]:
    """
    World model, actor and posterior of one batch as a CUDA graph, to see what the launches of single operations cost.

    :param model: on a CUDA device, with a filled replay buffer; its optimisers are made capturable
    :return: does that update again
    """
    segments, rewards, steps = model._sample_segments()
    batch = PolicyBatch(*model.replay_buffer.sample_states(model.batch_size))
    settings = model.update_settings()
    for optimizer in (model.world_model.optimizer, *model._policy_optimizers()):
        for group in optimizer.param_groups:
            group["capturable"] = True

    def run() -> None:
        update_world_model(model._twin, segments, rewards, settings, steps)
        update_actor(model._twin, batch, settings)

    stream = th.cuda.Stream()
    stream.wait_stream(th.cuda.current_stream())
    with th.cuda.stream(stream):
        for _ in range(3):
            run()
    th.cuda.current_stream().wait_stream(stream)
    graph = th.cuda.CUDAGraph()
    with th.cuda.graph(graph):
        run()

    def replay(held: object = run) -> None:
        """``held``: the graph reads the batch where it was, so that it must not be freed."""
        graph.replay()

    return replay


def count_flops(model: RPG, n_updates: int = 2) -> float:
    """
    :param model: of ``precision="fp32"``
    :param n_updates: to average over
    :return: floating-point operations of the matrix products of an update, two for each multiplication and addition
    """
    with FlopCounterMode(display=False) as counter:
        model.train(n_updates, model.batch_size)
    return counter.get_total_flops() / n_updates


@contextmanager
def plain_layers() -> Iterator[None]:
    """Without the fused layers of :mod:`sb3_rpg.fused`: torch's own, one operation a layer and activation."""
    fast = fused.HAS_ONEDNN
    fused.HAS_ONEDNN = False
    try:
        yield
    finally:
        fused.HAS_ONEDNN = fast


def compile_networks(model: RPG, backend: str) -> None:
    """
    Let ``torch.compile`` fuse what it can of the world model: the replayed steps and the heads, in both copies.

    :param model: whose networks are changed
    :param backend: of ``torch.compile``
    """
    policy = model._twin.network
    for network in (policy.world_model, policy.world_model_target):
        for name in ("replay", "predict_rewards", "predict_values", "_embed", "decoder"):
            setattr(network, name, th.compile(getattr(network, name), backend=backend))


def matmul(dtype: th.dtype, size: int = 1024) -> tuple[Callable[[], object], float]:
    """
    :param dtype: of the matrices
    :param size: of the square matrices; the caches hold them
    :return: their product, and its floating-point operations
    """
    a, b = th.randn(size, size).to(dtype), th.randn(size, size).to(dtype)
    return lambda: a @ b, 2.0 * size**3


def collect(model: OffPolicyAlgorithm, n_steps: int) -> Callable[[], None]:
    """
    :param model: past its ``learning_starts``
    :param n_steps: environment steps
    :return: goes on learning for so many
    """

    def learn() -> None:
        model.learn(n_steps, reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]

    return learn


def act(model: BaseAlgorithm, n_envs: int) -> Callable[[], object]:
    """
    :param model: RPG or another
    :param n_envs: observations in a batch
    :return: a step of ``predict`` within an episode: z is there
    """
    obs = np.random.default_rng(0).uniform(-1, 1, (n_envs, OBS_DIM)).astype(np.float32)
    state = model.predict(obs)[1]
    starts = np.zeros(n_envs, dtype=bool)
    return lambda: model.predict(obs, state, starts)
