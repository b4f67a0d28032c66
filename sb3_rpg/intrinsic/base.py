"""The interface of an intrinsic reward: a measure of novelty, trained beside the agent and asked when a batch is sampled."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TensorDict
from stable_baselines3.common.utils import get_device, update_learning_rate
from torch import nn

from sb3_rpg.checks import require_integer, require_number
from sb3_rpg.intrinsic.statistics import RunningMoments
from sb3_rpg.precision import Twin

Observation = th.Tensor | TensorDict
SelfIntrinsicReward = TypeVar("SelfIntrinsicReward", bound="IntrinsicReward")


class IntrinsicReward(nn.Module, ABC):
    """
    A bonus for transitions that are still new to a learned model.

    A subclass measures the novelty of transitions (:meth:`errors`) and calls :meth:`_make_optimizer` at the end of its
    constructor. This class turns errors into a reward (Section 4.3.2 of the paper, with the public code where it is silent):

    ``bonus = scale * clip((error - mean) / std, -clip, clip)``

    with the cumulative mean and standard deviation of the errors of the *training* batches. It is negative where nothing is
    new, and it changes with every update, so it must be computed when a batch is sampled, never stored with the transition.

    The first ``warmup_updates`` batches are left out of the statistics: the errors of an untrained model are large and would
    inflate the standard deviation for a long time. Until the statistics exist the bonus is zero. (The public code divides by
    a standard deviation of one in that window, which makes the very first bonuses an arbitrary positive constant; as it also
    trains the model for about as many steps before the agent's first update, the agent hardly meets them.)

    Parameters are trained by :attr:`optimizer`, Adam with epsilon 1e-8 and without gradient clipping. A subclass whose matrix
    products may follow the caller's autocast asks :meth:`_in_precision` for its networks.

    :param observation_space: Observation space of the (unnormalised) observations stored in the replay buffer.
    :param action_space: Action space.
    :param scale: Weight of the normalised error, in units of reward per standard deviation.
    :param clip: Bound of the normalised error, in standard deviations.
    :param learning_rate: Learning rate of Adam.
    :param warmup_updates: Number of first updates whose errors do not enter the statistics.
    :param device: Device of the model, "auto" for SB3's choice.
    :raises ValueError: if ``scale`` is not finite, ``clip`` or ``learning_rate`` not positive, or ``warmup_updates`` negative.
    """

    optimizer: th.optim.Optimizer
    n_updates: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        scale: float = 0.1,
        clip: float = 100.0,
        learning_rate: float = 3e-4,
        warmup_updates: int = 100,
        device: th.device | str = "auto",
    ) -> None:
        super().__init__()
        require_number("scale", scale, lambda x: True, "other than inf and nan, the weight of the bonus")
        if clip != math.inf:  # which clips nothing
            require_number("clip", clip, lambda x: x > 0, "above 0, in standard deviations")
        require_number("learning_rate", learning_rate, lambda x: x > 0, "above 0")
        require_integer("warmup_updates", warmup_updates, 0)
        self.observation_space = observation_space
        self.action_space = action_space
        self.scale = scale
        self.clip = clip
        self.learning_rate = learning_rate
        self.warmup_updates = warmup_updates
        self._initial_device = get_device(device)
        self.statistics = RunningMoments()
        self._twin: Twin[nn.ModuleDict] | None = None
        # Float like every other buffer; it is only compared with `warmup_updates`, so losing count at 2 ** 24 is harmless
        self.register_buffer("n_updates", th.zeros(()))

    @property
    def device(self) -> th.device:
        """Device of the model and of the tensors it returns."""
        return self.n_updates.device

    @abstractmethod
    def errors(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> th.Tensor:
        """
        Novelty of each transition, before any normalisation.

        :param obs: Observations (B, \\*shape), or a dict of them.
        :param actions: Actions (B, action_dim).
        :param next_obs: Next observations, like ``obs``.
        :return: Errors (B,), float32, differentiable with respect to the trained parameters.
        """

    def loss(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> tuple[th.Tensor, th.Tensor]:
        """
        What one training step minimises; here the mean error of the batch.

        :return: The loss (0-d) and the errors (B,) of the batch.
        """
        errors = self.errors(obs, actions, next_obs)
        return errors.mean(), errors

    def observe(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> None:
        """Hook for statistics of the inputs, called with each training batch before the loss is computed."""

    @th.no_grad()
    def bonus(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> th.Tensor:
        """
        The reward for a batch of transitions; changes nothing in the model.

        :param obs: Observations (B, \\*shape) as the replay buffer stores them (raw values, any dtype), or a dict of them.
        :param actions: Actions (B, action_dim).
        :param next_obs: Next observations, like ``obs``.
        :return: Bonus (B,), float32, without gradient.
        """
        return self.bonus_from_errors(self.novelty(obs, actions, next_obs))

    @th.no_grad()
    def novelty(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> th.Tensor:
        """
        What :meth:`bonus` is made of; changes nothing in the model.

        :return: :meth:`errors` (B,), float32, without gradient.
        """
        with self._uncached_autocast():
            return self.errors(obs, actions, next_obs)

    @th.no_grad()
    def bonus_from_errors(self, errors: th.Tensor) -> th.Tensor:
        """
        :param errors: Errors (B,).
        :return: Bonus (B,): normalised by the statistics so far, clipped and scaled; zero while there are no statistics.
        """
        normalized = self.statistics.standardize(errors).clamp(-self.clip, self.clip)
        return self.scale * normalized * (self.statistics.count > 0)

    def update(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> dict[str, th.Tensor]:
        """
        One training step; afterwards the errors of the batch (as they were before the step) enter the statistics.

        :param obs: Observations (B, \\*shape) as the replay buffer stores them, or a dict of them.
        :param actions: Actions (B, action_dim).
        :param next_obs: Next observations, like ``obs``.
        :return: ``loss``, ``error_mean``, ``error_std`` (of this batch) and ``bonus_mean`` (of this batch, with the
            statistics that include it), 0-d tensors on the model's device: reading them is left to the caller, because it
            waits for an accelerator.
        """
        with th.enable_grad():
            update_learning_rate(self.optimizer, self.learning_rate)  # another one may have been loaded
            self.observe(obs, actions, next_obs)
            with self._uncached_autocast():
                loss, errors = self.loss(obs, actions, next_obs)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._step()
        with th.no_grad():
            errors = errors.detach()
            self.n_updates += 1
            self.statistics.update(errors, use=(self.n_updates > self.warmup_updates).float())
            error_std, error_mean = th.std_mean(errors, correction=0)
            bonus_mean = self.bonus_from_errors(errors).mean()
        return {"loss": loss.detach(), "error_mean": error_mean, "error_std": error_std, "bonus_mean": bonus_mean}

    def _in_precision(self, networks: nn.ModuleDict) -> tuple[nn.ModuleDict, th.dtype]:
        """
        :param networks: All that the errors are computed with, the same ones at every call.
        :return: The networks in the precision of the caller's autocast, and the dtype of their inputs. For bfloat16 they are a
            copy: autocast would cast every weight at every use.
        """
        device_type = self.device.type
        autocast = th.amp.is_autocast_available(device_type) and th.is_autocast_enabled(device_type)
        if not autocast or th.get_autocast_dtype(device_type) != th.bfloat16:
            return networks, th.float32
        if self._twin is None:
            self._twin = Twin(networks, th.bfloat16)
        self._twin.refresh()
        return self._twin.network, th.bfloat16

    def _step(self) -> None:
        """Step the optimizer by the gradients of the loss."""
        if self._twin is None:
            self.optimizer.step()
        else:
            self._twin.step(self.optimizer)

    def _uncached_autocast(self) -> AbstractContextManager[Any]:
        """
        The caller's autocast without its cache of casted weights: that cache lives as long as the caller's context, so a
        second update in one context would train against the weights from before the first.
        """
        device_type = self.device.type
        if not th.amp.is_autocast_available(device_type) or not th.is_autocast_enabled(device_type):
            return nullcontext()
        return th.autocast(device_type, th.get_autocast_dtype(device_type), cache_enabled=False)

    def _make_optimizer(self) -> None:
        """Move the model to its device and create the optimizer of every parameter that requires a gradient."""
        self.to(self._initial_device)
        try:
            self.optimizer = th.optim.Adam(self._trained(), lr=self.learning_rate, eps=1e-8, fused=True)
        except RuntimeError:  # no fused kernel for this device
            self.optimizer = th.optim.Adam(self._trained(), lr=self.learning_rate, eps=1e-8)

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _apply(self: SelfIntrinsicReward, fn: Callable[..., Any], recurse: bool = True) -> SelfIntrinsicReward:
        """Let the optimizer's state follow the parameters (``to``, ``cpu``, ``cuda``); PyTorch leaves it behind."""
        self._twin = None
        super()._apply(fn, recurse)
        if hasattr(self, "optimizer"):
            state = self.optimizer.state_dict()
            self.optimizer.param_groups[0]["params"] = self._trained()  # between some devices parameters are made anew
            self.optimizer.load_state_dict(state)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_twin": None}
