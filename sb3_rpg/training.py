"""What an update of RPG is made of: which batches, which coefficients, what is stepped when. The maths is in ``updates``."""

import time
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import update_learning_rate

from sb3_rpg.actor import LatentActor
from sb3_rpg.batches import (
    PolicyBatch,
    automatic_relabel,
    draw_steps,
    fill_latents,
    relabel_latents,
    segment_novelty,
    take_steps,
    with_episode_starts,
)
from sb3_rpg.buffers import SegmentSamples
from sb3_rpg.intrinsic import IntrinsicReward, transitions_at, uniform_transition_batch
from sb3_rpg.losses import entropy_coefficient_loss, latent_temperature_step
from sb3_rpg.metrics import Metrics
from sb3_rpg.networks import polyak_average
from sb3_rpg.policies import RPGPolicy
from sb3_rpg.posterior import Posterior
from sb3_rpg.precision import Twin
from sb3_rpg.rollouts import LatentOffPolicyAlgorithm
from sb3_rpg.schedules import Coefficient, coefficient_at
from sb3_rpg.updates import UpdateSettings, update_actor, update_world_model
from sb3_rpg.world_model import WorldModel


class LatentTraining(LatentOffPolicyAlgorithm):
    """
    The training half of :class:`~sb3_rpg.RPG`, whose constructor and ``_setup_model`` set what is declared here; see there for
    what the arguments mean.
    """

    actor: LatentActor
    world_model: WorldModel
    world_model_target: WorldModel
    posterior: Posterior
    bonus: IntrinsicReward | None
    metrics: Metrics
    log_ent_coef: th.Tensor
    ent_coef_optimizer: th.optim.Optimizer | None
    _twin: Twin[RPGPolicy]
    _autocast: th.autocast
    _n_model_updates: int
    # The constructor's arguments, completed and checked
    ent_coef: str | Coefficient
    target_entropy: str | float
    target_update_interval: int
    beta: Coefficient
    posterior_baseline: bool
    latent_ent_coef: str | Coefficient
    latent_target_entropy: str | Coefficient
    latent_relabel: float | str
    horizon: int
    target_horizon: int | None
    head_steps: int | None
    value_weight_decay: float
    policy_delay: int
    actor_batch_size: int | None
    loss_weights: dict[str, float]
    max_grad_norm: float
    model_lr_factor: float
    ent_coef_lr_factor: float
    entropy_in_target: bool
    reward_scale: Coefficient | str
    intrinsic_batch_size: int
    novelty_share: float
    novelty_exponent: float

    def update_settings(self) -> UpdateSettings:
        """
        :return: the numbers of the next update; coefficients follow their schedules
        """
        learned = None if self.ent_coef_optimizer is None else self.log_ent_coef.detach().exp()
        return UpdateSettings(
            horizon=self.horizon,
            target_horizon=self.horizon if self.target_horizon is None else self.target_horizon,
            gamma=self.gamma,
            value_weight_decay=self.value_weight_decay,
            ent_coef=self._coefficient(self.ent_coef) if learned is None else learned,
            beta=self._coefficient(self.beta),
            posterior_baseline=self.posterior_baseline,
            latent_ent_coef=self._latent_ent_coef(),
            loss_weights=self.loss_weights,
            max_grad_norm=self.max_grad_norm,
            entropy_in_target=self.entropy_in_target,
            model_terminations=self._model_terminations,
        )

    @property
    def _model_terminations(self) -> bool:
        return self._terminations_seen and self.loss_weights["termination"] > 0

    def _latent_ent_coef(self) -> float | th.Tensor:
        held = isinstance(self.latent_ent_coef, str)
        return self.actor.latent_temperature.clone() if held else self._coefficient(self.latent_ent_coef)

    def _coefficient(self, value: Any) -> float:
        return coefficient_at(value, self.num_timesteps, self._current_progress_remaining)

    def update_intrinsic_reward(self) -> None:
        """One step of the intrinsic reward's own training, on transitions uniform over all that the buffer remembers."""
        if self.bonus is None:
            return
        batch = uniform_transition_batch(self.replay_buffer, self.intrinsic_batch_size)
        with self._autocast:
            metrics = self.bonus.update(*batch)
        self.metrics.add(metrics, "intrinsic")

    def train_world_model(self, gradient_steps: int) -> None:
        """
        :param gradient_steps: updates of the intrinsic reward and the world model
        """
        self._heed_stored_transitions()
        start = time.perf_counter()
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            self.update_intrinsic_reward()
            self.update_world_model()
        self.metrics.add_time("world_model", time.perf_counter() - start)

    def update_world_model(self) -> None:
        """One step of the world model (Eq. 4) on a batch of segments, and of its target networks where due."""
        learning_rate = self.lr_schedule(self._current_progress_remaining) * self.model_lr_factor
        update_learning_rate(self.world_model.optimizer, learning_rate)
        segments, rewards, steps = self._sample_segments()
        self._twin.refresh()
        metrics = update_world_model(self._twin, segments, rewards, self.update_settings(), steps)
        self.metrics.add(metrics)
        self._n_model_updates += 1
        if self._n_model_updates % self.target_update_interval == 0:
            self._update_target()

    def _update_target(self) -> None:
        online, target = self.world_model, self.world_model_target
        polyak_average(list(online.parameters()), list(target.parameters()), self.tau)
        for source, copy in zip(online.buffers(), target.buffers(), strict=True):
            copy.copy_(source)  # running statistics of a features extractor
        self._twin.follow(target.parameters())

    def _sample_segments(self) -> tuple[SegmentSamples, th.Tensor, th.Tensor | None]:
        """
        :return: a batch; what the reward head learns from it, scaled extrinsic reward plus bonus, (M, B); the steps that the
            heads learn from, (M, B), None: all
        """
        n_by_novelty = self._count_by_novelty(self.batch_size)
        segments = self.replay_buffer.sample_segments(self.batch_size, self.horizon, n_by_novelty=n_by_novelty)
        segments = segments._replace(latents=self._relabel(segments.latents))
        steps = draw_steps(self.horizon, self.batch_size, self.head_steps, self.device)
        bonus = None
        if self.bonus is not None:
            with self._autocast:
                novelty = segment_novelty(self.bonus, segments, steps)
            bonus = self.bonus.bonus_from_errors(novelty.flatten()).view_as(novelty)
            if n_by_novelty > 0:
                # Of the steps that are learned from: known anyway, and neighbours in time are alike
                index = self.replay_buffer.index_novelty(self.novelty_exponent)
                index.rate(segments.places.cpu().numpy(), novelty.mean(dim=0).cpu().numpy())
        if self._vec_normalize_env is not None:
            segments = self.replay_buffer.normalize_segments(segments, self._vec_normalize_env)
        rewards = take_steps(segments.rewards, steps) * self._extrinsic_scale()
        self.metrics.add({"extrinsic_reward": rewards.mean()})
        if bonus is not None:
            self.metrics.add({"intrinsic_reward": bonus.mean()})
            rewards = rewards + bonus
        return segments, rewards, steps

    def _count_by_novelty(self, batch_size: int) -> int:
        """How many of a batch are drawn by novelty; before any is, all that has been stored since is looked at once."""
        count = 0 if self.bonus is None else round(self.novelty_share * batch_size)
        if self.bonus is not None and count > 0:
            index = self.replay_buffer.index_novelty(self.novelty_exponent)
            for places in index.take_unrated(1 + 4096 // self.n_envs):
                batch = transitions_at(self.replay_buffer, *np.divmod(places, self.n_envs))
                with self._autocast:
                    novelty = self.bonus.novelty(*batch)
                index.rate(places, novelty.cpu().numpy())
        return count

    def _relabel(self, latents: th.Tensor) -> th.Tensor:
        if self.replay_buffer.lacks_latents:
            latents = fill_latents(latents, self.latent_space)
        fraction = self.latent_relabel
        if isinstance(fraction, str):
            fraction = automatic_relabel(self.replay_buffer.mean_episode_length)
        return relabel_latents(latents, self.latent_space, fraction)

    def _heed_stored_transitions(self) -> None:
        """
        Whether there are terminations to be modelled, and, where nothing was collected because all was loaded or added as
        demonstrations, the scale of the rewards.
        """
        self._terminations_seen |= self.replay_buffer.terminations_seen
        if self._return_scaler.is_empty:
            for rewards, dones, starts in self.replay_buffer.steps_in_order():
                rewards = self.replay_buffer._normalize_reward(rewards, self._vec_normalize_env)  # as they are learned from
                self._return_scaler.update(rewards, dones, self.gamma, starts)

    def _extrinsic_scale(self) -> float:
        if self.reward_scale == "auto":
            return self._return_scaler.factor
        return self._coefficient(self.reward_scale)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Improve the policy in the world model; called by SB3 after the world-model learner's callback. Outside of ``learn()``,
        where no callback is, the world model is trained too: that is training from a loaded replay buffer.

        :param gradient_steps: updates that the rollout called for; one in ``policy_delay`` steps the actor
        :param batch_size: states that the actor imagines from, unless ``actor_batch_size`` says; world model and intrinsic
            reward have batch sizes of their own
        """
        if not self._is_learning:
            self.train_world_model(gradient_steps)
        start = time.perf_counter()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._policy_optimizers())
        if self.ent_coef_optimizer is not None:
            learning_rate = self.lr_schedule(self._current_progress_remaining)
            update_learning_rate(self.ent_coef_optimizer, learning_rate * self.ent_coef_lr_factor)
        for _ in range(gradient_steps):
            self._n_updates += 1
            if self._n_updates % self.policy_delay == 0:
                self._update_policy(self.actor_batch_size or batch_size)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.metrics.add_time("policy", time.perf_counter() - start)
        if self.device.type == "cpu":
            # Nothing has to be waited for: there for whoever dumps the log, as an evaluation does
            self.metrics.record_means(self.logger)

    def _policy_optimizers(self) -> list[th.optim.Optimizer]:
        optimizers = [self.actor.optimizer]
        if self.actor.latent_head is not None:
            optimizers.append(self.actor.latent_optimizer)
        if self.posterior.net is not None:
            optimizers.append(self.posterior.optimizer)
        return optimizers

    def _update_policy(self, batch_size: int) -> None:
        settings = self.update_settings()
        if not isinstance(settings.latent_ent_coef, th.Tensor):
            self.actor.latent_temperature.fill_(settings.latent_ent_coef)
        n_by_novelty = self._count_by_novelty(batch_size)
        batch = PolicyBatch(*self.replay_buffer.sample_states(batch_size, self._vec_normalize_env, n_by_novelty))
        batch = batch._replace(latents=self._relabel(batch.latents))
        n_starts = 0
        if self.actor.latent_head is not None:
            # A buffer smaller than an episode may hold no start at all
            n_starts = batch_size // 4 if len(self.replay_buffer.start_index) > 0 else 0
            starts = self.replay_buffer.sample_starts(n_starts, self._vec_normalize_env)
            batch = with_episode_starts(batch, starts, n_starts)
        self._twin.refresh()
        metrics, log_probs = update_actor(self._twin, batch, settings)
        self.metrics.add(metrics)
        if self.actor.latent_head is not None:
            self.metrics.add({"latent_ent_coef": settings.latent_ent_coef})
            if isinstance(self.latent_ent_coef, str) and n_starts > 0:
                self._hold_latent_entropy(metrics["latent_entropy"])
        if self.ent_coef_optimizer is not None:
            assert isinstance(self.target_entropy, float)
            loss = entropy_coefficient_loss(self.log_ent_coef, log_probs, self.target_entropy)
            self.ent_coef_optimizer.zero_grad()
            loss.backward()
            self.ent_coef_optimizer.step()
            self.metrics.add({"ent_coef_loss": loss})
        self.metrics.add({"ent_coef": settings.ent_coef, "beta": settings.beta})

    def _hold_latent_entropy(self, entropy: th.Tensor) -> None:
        target = self.latent_target_entropy
        target = self.latent_space.default_target_entropy if isinstance(target, str) else self._coefficient(target)
        temperature = self.actor.latent_temperature
        temperature.copy_(latent_temperature_step(temperature, entropy, target))
