"""RPG as one of Stable-Baselines3's algorithms: learning, callbacks, schedules, target networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_rpg import RPG, Ramp, WorldModelCallback
from sb3_rpg.intrinsic import RND
from sb3_rpg.latents import LATENT_SPACES, CategoricalLatent, GaussianLatent
from tests.conftest import SMALL, SMALL_POLICY, Counter, LabelledEnv, changed, labelled_vec_env, parameters_of, small_rpg

# --------------------------------------------------------------------- learning


@pytest.mark.parametrize("steps", [30, 3e1])
def test_steps_may_be_a_float(steps: float) -> None:
    model = small_rpg().learn(steps)
    assert model.num_timesteps == 30 and isinstance(model._total_timesteps, int)


@pytest.mark.parametrize("kind", ["id", "environment", "vector"])
def test_environments_in_every_form(kind: str) -> None:
    env = {"id": "Pendulum-v1", "environment": LabelledEnv(), "vector": labelled_vec_env(2)}[kind]
    model = small_rpg(env).learn(20)
    assert model._n_updates > 0
    action, state = model.predict(model.observation_space.sample())
    assert model.action_space.contains(action) and state is not None


@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_every_latent_space_learns(latent: str) -> None:
    model = small_rpg(latent=latent)
    before = {name: parameters_of(part) for name, part in model.policy.named_children()}
    model.learn(30)
    for name, part in model.policy.named_children():
        assert changed(before[name], part) or (name == "posterior" and latent == "none"), name
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_a_latent_space_object_and_arguments_of_one() -> None:
    assert small_rpg(latent=GaussianLatent(7)).latent_space.dim == 7
    space: Any = small_rpg(latent_kwargs={"posterior_std": 0.7}).latent_space
    assert space.posterior_std == 0.7
    with pytest.raises(ValueError, match=r"`latent_kwargs`=\{'posterior_std': 0.7\} are for a latent's name"):
        small_rpg(latent=GaussianLatent(7), latent_kwargs={"posterior_std": 0.7})


@pytest.mark.parametrize("latent_ent_coef", [0.0, Ramp(1.0, 0.0, 0, 15)])
def test_pi_of_z_may_go_without_entropy(latent_ent_coef: Any) -> None:
    for latent in ("categorical", "mixed", "learned_gaussian"):
        assert small_rpg(latent=latent, latent_ent_coef=latent_ent_coef).learn(24)._n_updates > 0


@pytest.mark.parametrize(
    ("space", "policy"),
    [
        (spaces.Discrete(8), "MlpPolicy"),
        (spaces.Dict({"step": spaces.Discrete(8), "label": spaces.Box(-9, 9, (3,))}), "MultiInputPolicy"),
        (spaces.Box(-9, 9, (4, 3)), "MlpPolicy"),
    ],
)
def test_integers_and_stacked_vectors(space: spaces.Space, policy: str) -> None:
    model = small_rpg(Counter(space), policy).learn(30)
    assert model.replay_buffer.size() == 30 and model._n_updates > 0
    assert isinstance(model.bonus, RND)


@pytest.mark.parametrize(("kind", "policy"), [("image", "CnnPolicy"), ("dict", "MultiInputPolicy")])
def test_images_and_dicts(kind: str, policy: str) -> None:
    model = small_rpg(LabelledEnv(space=kind), policy, buffer_size=30).learn(16)
    assert model._n_updates == 6
    assert isinstance(model.bonus, RND) == (kind == "dict")  # "auto" means none for images


def test_whoever_says_what_to_look_at_in_an_image_gets_a_bonus() -> None:
    def brightness(observations: th.Tensor) -> th.Tensor:
        return observations.float().mean(dim=(1, 2, 3)).unsqueeze(-1)

    kwargs = {"function": brightness, "width": 8}
    model = small_rpg(LabelledEnv(space="image"), "CnnPolicy", buffer_size=30, intrinsic_reward_kwargs=kwargs)
    assert isinstance(model.learn(16).bonus, RND)


@pytest.mark.parametrize(
    ("choice", "expected"), [(None, type(None)), ("none", type(None)), ("rnd", RND), ("auto", RND), (RND, RND)]
)
def test_intrinsic_reward_by_name_class_or_none(choice: Any, expected: type) -> None:
    model = small_rpg(intrinsic_reward=choice).learn(13)
    assert isinstance(model.bonus, expected)


def test_same_seed_same_parameters_bit_for_bit_and_another_seed_others() -> None:
    first, second, other = (
        small_rpg(labelled_vec_env(2), seed=seed, latent="learned_gaussian").learn(40) for seed in (3, 3, 4)
    )
    assert changed(parameters_of(first.policy), second.policy) == set()
    assert first.bonus is not None and second.bonus is not None
    assert changed(parameters_of(first.bonus), second.bonus) == set()
    assert np.array_equal(first.replay_buffer.latents, second.replay_buffer.latents)
    assert "actor.action_head.net.0.weight" in changed(parameters_of(first.policy), other.policy)


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_evaluation_during_training_changes_nothing(latent: str, tmp_path: Path) -> None:
    plain = small_rpg(latent=latent).learn(40)
    callback = EvalCallback(labelled_vec_env(1), eval_freq=7, n_eval_episodes=2, verbose=0, best_model_save_path=str(tmp_path))
    evaluated = small_rpg(latent=latent).learn(40, callback)
    assert len(list(tmp_path.iterdir())) > 0
    assert changed(parameters_of(plain.policy), evaluated.policy) == set()


class Asking(BaseCallback):
    def _on_step(self) -> bool:
        self.z = self.model.predict(np.zeros(3, dtype=np.float32))[1][0]  # type: ignore[index]
        return True


def test_evaluations_draw_another_z_where_training_goes_on() -> None:
    model, asking = small_rpg(learning_starts=100), Asking()
    model.learn(1, asking)
    first = asking.z
    model.learn(1, asking, reset_num_timesteps=False)
    assert not np.array_equal(first, asking.z)


def test_batch_normalisation_in_the_features_extractor() -> None:
    class WithBatchNorm(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Box):
            super().__init__(space, features_dim=3)
            self.norm = nn.BatchNorm1d(3)

        def forward(self, obs: th.Tensor) -> th.Tensor:
            modes.append((len(obs) == 1, self.training, self is model.world_model_target.encoder.features_extractor))
            return self.norm(obs)

    modes: list[tuple[bool, bool, bool]] = []
    model = small_rpg(policy_kwargs={**SMALL_POLICY, "features_extractor_class": WithBatchNorm})
    before = parameters_of(model.policy)
    model.learn(10)
    assert changed(before, model.policy) == set()
    model.learn(20)
    moved = {name for name in changed(before, model.policy) if name.endswith("running_mean")}
    assert any(name.startswith("world_model.") for name in moved)
    assert any(name.startswith("world_model_target.") for name in moved)
    # It acts in evaluation mode, learns in training mode, and gives targets in evaluation mode
    assert set(modes) == {(True, False, False), (False, True, False), (False, False, True)}


def test_users_dicts_stay_as_they_were_given() -> None:
    policy_kwargs, buffer_kwargs = dict(SMALL_POLICY), {"handle_timeout_termination": True}
    model = small_rpg(policy_kwargs=policy_kwargs, replay_buffer_kwargs=buffer_kwargs, intrinsic_reward_kwargs={"width": 8})
    model.learn(12)
    assert policy_kwargs == SMALL_POLICY == model.policy_kwargs
    assert buffer_kwargs == {"handle_timeout_termination": True} == model.replay_buffer_kwargs
    assert SMALL["intrinsic_reward_kwargs"] == {"width": 8, "warmup_updates": 2}


def test_evaluate_policy_carries_z(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_rpg()
    seen: list[tuple[float, ...]] = []
    predict = model.policy.predict

    def spy(*args: Any, **kwargs: Any) -> Any:
        result = predict(*args, **kwargs)
        seen.append(tuple(result[1][0][0].tolist()))
        return result

    monkeypatch.setattr(model.policy, "predict", spy)
    evaluate_policy(model, labelled_vec_env(1, lengths=(4,)), n_eval_episodes=3, deterministic=False, warn=False)
    assert [len(set(seen[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1] and len(set(seen[:12])) == 3


# -------------------------------------------------------------------- callbacks


class Counting(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.steps = self.rollouts = 0

    def _on_step(self) -> bool:
        self.steps += 1
        return True

    def _on_rollout_end(self) -> None:
        # The learner comes first: what the rollout called for is done
        self.rollouts += 1
        assert self.model._n_model_updates == self.rollouts - 10 or self.rollouts <= 10  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["callback", "list", "CallbackList", "function", "None"])
def test_callbacks_in_every_form_beside_the_learner(form: str) -> None:
    counting, calls = Counting(), []

    def function(local_variables: dict[str, Any], global_variables: dict[str, Any]) -> bool:
        calls.append(local_variables["self"].num_timesteps)
        return True

    callback: Any = {
        "callback": counting,
        "list": [counting, Counting()],
        "CallbackList": CallbackList([CallbackList([counting])]),
        "function": function,
        "None": None,
    }[form]
    model = small_rpg().learn(25, callback)
    assert model._n_model_updates == model._n_updates == 15
    if form == "function":
        assert calls == list(range(1, 26))
    elif form != "None":
        assert (counting.steps, counting.rollouts) == (25, 25)


class OwnLearner(WorldModelCallback):
    updates = 0

    def train_world_model(self, gradient_steps: int) -> None:
        self.updates += gradient_steps
        super().train_world_model(2 * gradient_steps)


@pytest.mark.parametrize("nested", [False, True])
def test_own_world_model_callback_replaces_the_built_in_one(nested: bool) -> None:
    own, counting = OwnLearner(), EveryNTimesteps(1, Stop())
    model = small_rpg().learn(25, CallbackList([CallbackList([own]), counting]) if nested else own)
    assert own.updates == 15 and model._n_model_updates == 30 and model._n_updates == 15
    # The next call without it gets the built-in one again
    model.learn(12)
    assert model._n_model_updates == 32


class Stop(BaseCallback):
    def __init__(self, at: int = 10**9):
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        return self.num_timesteps < self.at


def test_callbacks_that_stop_and_save(tmp_path: Path) -> None:
    model = small_rpg().learn(100, Stop(at=17))
    assert model.num_timesteps == 17 and model._n_updates == 6
    checkpoints = CheckpointCallback(12, str(tmp_path), name_prefix="m", save_replay_buffer=True)
    model = small_rpg().learn(1000, [StopTrainingOnMaxEpisodes(2), checkpoints])
    assert model.num_timesteps == model.replay_buffer.size() == 14
    loaded = RPG.load(tmp_path / "m_12_steps.zip", device="cpu")
    loaded.load_replay_buffer(tmp_path / "m_replay_buffer_12_steps.pkl")
    assert loaded.num_timesteps == 12 and loaded.replay_buffer.size() == 11  # saved before the 12th is stored


# -------------------------------------------------- coefficients and target copies


class Recording(WorldModelCallback):
    """Notes a number at every world-model update, by environment steps."""

    def __init__(self, read: Any):
        super().__init__()
        self.read, self.seen = read, {}  # type: ignore[var-annotated]

    def train_world_model(self, gradient_steps: int) -> None:
        self.seen[self.num_timesteps] = float(self.read(self.model))
        super().train_world_model(gradient_steps)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("beta", lambda model: model.update_settings().beta),
        ("latent_ent_coef", lambda model: model.update_settings().latent_ent_coef),
        ("ent_coef", lambda model: model.update_settings().ent_coef),
        ("reward_scale", lambda model: model._extrinsic_scale()),
    ],
)
def test_ramps_and_functions_reach_the_updates(name: str, read: Any) -> None:
    recording = Recording(read)
    small_rpg(train_freq=5, **{name: Ramp(1.0, 0.0, start=20, end=40)}).learn(45, recording)
    assert recording.seen == pytest.approx({15: 1.0, 20: 1.0, 25: 0.75, 30: 0.5, 35: 0.25, 40: 0.0, 45: 0.0})
    recording = Recording(read)
    small_rpg(train_freq=5, **{name: lambda progress: 2.0 * progress}).learn(20, recording)
    assert recording.seen == pytest.approx({15: 0.5, 20: 0.0})
    recording = Recording(read)
    small_rpg(**{name: 0.25}).learn(15, recording)
    assert set(recording.seen.values()) == {0.25}


def test_alpha_is_learned_only_if_asked_for_and_from_its_initial_value() -> None:
    model = small_rpg(ent_coef="auto_0.2", learning_rate=0.01)
    assert float(model.update_settings().ent_coef) == pytest.approx(0.2)
    assert model.target_entropy == -2.0
    model.learn(30)
    assert float(model.update_settings().ent_coef) != pytest.approx(0.2, abs=1e-4)
    assert float(small_rpg(ent_coef="auto").update_settings().ent_coef) == pytest.approx(1.0)
    assert small_rpg(ent_coef=0.3).learn(20).update_settings().ent_coef == 0.3
    # An entropy far above its target lets alpha fall, one far below lets it rise
    for target, sign in ((-50.0, -1), (50.0, 1)):
        model = small_rpg(ent_coef="auto_0.2", target_entropy=target).learn(30)
        assert np.sign(float(model.update_settings().ent_coef) - 0.2) == sign


@pytest.mark.parametrize("latent", ["categorical", "mixed", "learned_gaussian"])
def test_alpha_z_is_held_by_the_entropy_of_pi_of_z(latent: str) -> None:
    # An entropy above its target lets alpha_z fall, one below lets it rise; from its initial value
    for end, sign in ((0, -1), (1, 1)):
        model = small_rpg(latent=latent, latent_ent_coef="auto_3")
        model.latent_target_entropy = model.latent_space.entropy_range[end] + 10.0 * sign  # out of reach, a nat away
        assert float(model.update_settings().latent_ent_coef) == pytest.approx(3.0)
        model.learn(30)
        expected = 3.0 * math.exp(0.1 * sign * model._n_updates)
        assert model._n_updates > 0 and model.actor.latent_temperature.item() == pytest.approx(expected, rel=1e-4)


def test_the_target_of_pi_of_zs_entropy_follows_its_ramp() -> None:
    model = small_rpg(latent="categorical")
    model.latent_target_entropy = Ramp(10.0, -10.0, start=20, end=21)  # out of reach: steps of a tenth, up and down
    model.learn(20)
    highest = model.actor.latent_temperature.item()
    model.learn(10, reset_num_timesteps=False)
    assert highest > 1.0 and model.actor.latent_temperature.item() == pytest.approx(highest * math.exp(-1.0), rel=1e-4)


def test_by_default_pi_of_z_keeps_nine_tenths_of_its_most_entropy() -> None:
    # Rewards far above 1, so that q / 1 is decided at once
    def entropy(**kwargs: Any) -> float:
        model = small_rpg(labelled_vec_env(2, reward=100.0), latent="categorical", reward_scale=1.0, **kwargs).learn(600)
        states = model.world_model.encoder(model.replay_buffer.sample_starts(64))
        params, temperature = model.actor.latent_params(states), model.actor.latent_temperature
        return model.latent_space.entropy(64, params, temperature, model.device).mean().item()

    most = math.log(small_rpg(latent="categorical").latent_space.dim)
    assert 0.7 * most < entropy() < 0.95 * most
    assert entropy(latent_ent_coef=1.0) < 0.1 * most


def test_a_space_of_ones_own_must_say_what_entropy_to_hold() -> None:
    class Own(CategoricalLatent):
        default_target_entropy = math.nan

    with pytest.raises(
        ValueError, match=r"`latent_target_entropy='auto'` has no value for latent='categorical'.*give a number"
    ):
        small_rpg(latent=Own(3))
    assert small_rpg(latent=Own(3), latent_target_entropy=1.0).learn(20)._n_updates > 0
    assert small_rpg(latent=Own(3), latent_ent_coef=1.0).learn(20)._n_updates > 0


def test_the_actor_draws_categories_with_the_latest_temperature() -> None:
    model = small_rpg(latent="categorical", latent_ent_coef=Ramp(1.0, 0.0, start=0, end=40)).learn(30)
    assert model.actor.latent_temperature.item() == pytest.approx(0.25)


def test_learning_rate_schedule_reaches_every_optimizer() -> None:
    model = small_rpg(latent="categorical", learning_rate=lambda progress: 1e-3 * progress).learn(50)
    assert model.ent_coef_optimizer is not None
    optimizers = model._policy_optimizers()
    assert len(optimizers) == 3  # actor, pi(z|s1), posterior
    for optimizer in (*optimizers, model.world_model.optimizer, model.ent_coef_optimizer):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-6)


def test_the_models_and_alphas_learning_rates_are_multiples_of_the_actors() -> None:
    factors = {"model_lr_factor": 2.0, "ent_coef_lr_factor": 4.0}
    model = small_rpg(**factors, learning_rate=lambda progress: 1e-3 * (1.0 + progress)).learn(20)
    assert model.world_model.optimizer.param_groups[0]["lr"] == pytest.approx(2e-3)
    assert model.ent_coef_optimizer is not None
    assert model.ent_coef_optimizer.param_groups[0]["lr"] == pytest.approx(4e-3)
    assert model.actor.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize(("interval", "tau"), [(1, 0.3), (2, 0.005), (3, 1.0)])
def test_target_networks_move_by_exactly_tau_at_every_so_many_updates(interval: int, tau: float) -> None:
    model = small_rpg(target_update_interval=interval, tau=tau).learn(10)  # nothing learned yet
    for update in range(1, 7):
        before = parameters_of(model.world_model_target)
        model.update_world_model()
        online, after = parameters_of(model.world_model), parameters_of(model.world_model_target)
        for name, value in before.items():
            if update % interval == 0:
                assert th.allclose(after[name], value + tau * (online[name] - value), atol=1e-7), (update, name)
            else:
                assert th.equal(after[name], value), (update, name)
    assert changed(online, model.world_model_target) or tau == 1.0
