"""The bfloat16 twin that losses are computed on, and its float32 master that is stepped, acts and is saved."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_rpg import RPG
from sb3_rpg.latents import LATENT_SPACES
from sb3_rpg.precision import Twin, resolve_precision
from sb3_rpg.updates import update_actor
from tests.conftest import SMALL_POLICY, LabelledEnv, changed, labelled_vec_env, parameters_of, small_rpg
from tests.single_updates import make_batch, make_policy, make_settings

CPU = th.device("cpu")


class Small(nn.Module):
    """A network that owns its optimizer and shares a module, as RPG's policy does."""

    def __init__(self) -> None:
        super().__init__()
        self.extractor = nn.Linear(3, 4)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
        self.again = self.body[1]
        self.optimizer = th.optim.SGD(self.parameters(), lr=0.1)

    def forward(self, x: th.Tensor) -> th.Tensor:
        hidden = self.extractor(x)
        return self.body(hidden.to(self.body[0].weight.dtype)).float()


def test_explicit_precisions_and_automatic_ones() -> None:
    assert resolve_precision("fp32", CPU) == th.float32
    assert resolve_precision("bf16", CPU) == th.bfloat16
    assert resolve_precision("auto", CPU) in (th.float32, th.bfloat16)
    assert resolve_precision("auto", th.device("meta")) == th.float32


def test_automatic_precision_is_bfloat16_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for amx, avx in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(th.cpu, "_is_amx_tile_supported", lambda value=amx: value, raising=False)
        monkeypatch.setattr(th.cpu, "_is_avx512_bf16_supported", lambda value=avx: value, raising=False)
        assert resolve_precision("auto", CPU) == (th.bfloat16 if amx or avx else th.float32)


def test_in_float32_the_twin_is_the_master() -> None:
    master = Small()
    assert Twin(master, th.float32).network is master


def test_the_twin_is_a_copy_in_bfloat16_but_for_what_is_shared() -> None:
    master = Small()
    twin = Twin(master, th.bfloat16, shared=[master.extractor]).network
    assert twin is not master and twin.extractor is master.extractor and twin.again is twin.body[1]
    for own, copied in zip(master.body.parameters(), twin.body.parameters(), strict=True):
        assert own.dtype == th.float32 and copied.dtype == th.bfloat16
        assert th.equal(own.to(th.bfloat16), copied) and own.data_ptr() != copied.data_ptr()
    assert isinstance(master.optimizer, th.optim.SGD)
    assert all(parameter.dtype == th.float32 for parameter in master.extractor.parameters())


@pytest.mark.parametrize("dtype", [th.float32, th.bfloat16])
def test_a_step_moves_masters_by_the_twins_gradients_and_the_twin_follows(dtype: th.dtype) -> None:
    master = Small()
    twin = Twin(master, dtype, shared=[master.extractor])
    before = parameters_of(master)
    twin.network(th.ones(2, 3)).sum().backward()
    gradients = {name: p.grad.float().clone() for name, p in twin.network.named_parameters() if p.grad is not None}
    assert set(gradients) == {name for name, _ in master.named_parameters()}
    assert twin.step(master.optimizer).item() == 0.0
    for name, parameter in master.named_parameters():
        assert th.allclose(parameter, before[name] - 0.1 * gradients[name], atol=1e-7), name
    for own, copied in zip(master.parameters(), twin.network.parameters(), strict=True):
        assert own.grad is None and copied.grad is None
        assert th.equal(own.to(copied.dtype), copied)


def test_small_steps_add_up_in_the_master() -> None:
    """A step of a thousandth of a weight is lost in bfloat16."""
    master = nn.Linear(1, 1, bias=False)
    nn.init.ones_(master.weight)
    twin, optimizer = Twin(master, th.bfloat16), th.optim.SGD(master.parameters(), lr=0.001)
    for _ in range(100):
        twin.network.weight.grad = th.ones(1, 1, dtype=th.bfloat16)
        twin.step(optimizer)
    assert master.weight.item() == pytest.approx(0.9, abs=1e-4)
    assert twin.network.weight.item() == pytest.approx(0.9, abs=0.004)


@pytest.mark.parametrize("dtype", [th.float32, th.bfloat16])
def test_gradients_are_clipped_together_and_the_norm_before_is_returned(dtype: th.dtype) -> None:
    master = nn.Linear(2, 1, bias=False)
    nn.init.ones_(master.weight)
    twin, optimizer = Twin(master, dtype), th.optim.SGD(master.parameters(), lr=0.1)
    twin.network.weight.grad = th.tensor([[3.0, 4.0]], dtype=dtype)
    assert twin.step(optimizer, max_grad_norm=1.0).item() == pytest.approx(5.0)
    assert th.allclose(master.weight, th.tensor([[1.0 - 0.06, 1.0 - 0.08]]), atol=1e-5)
    twin.network.weight.grad = th.tensor([[3.0, 4.0]], dtype=dtype)
    twin.step(optimizer, max_grad_norm=0.0)
    assert th.allclose(master.weight, th.tensor([[0.94 - 0.3, 0.92 - 0.4]]), atol=1e-5)


def test_parameters_without_gradient_stay_and_others_of_the_twin_are_not_touched() -> None:
    master = Small()
    twin = Twin(master, th.bfloat16)
    first = th.optim.SGD(master.body[0].parameters(), lr=0.1)
    twin.network.body(th.ones(1, 4, dtype=th.bfloat16)).sum().backward()
    before = parameters_of(master)
    twin.step(first)
    assert changed(before, master) == {"body.0.weight", "body.0.bias"}
    assert twin.network.body[1].weight.grad is not None  # of another optimizer, whose step is to come


@pytest.mark.parametrize("way", ["load_state_dict", "copy", "init"])
def test_the_twin_follows_masters_that_were_changed_from_outside(way: str) -> None:
    master, other = Small(), Small()
    own_layer: Any = master.body[0]
    other_layer: Any = other.body[0]
    twin = Twin(master, th.bfloat16)
    if way == "load_state_dict":
        master.load_state_dict(other.state_dict())
    elif way == "copy":
        with th.no_grad():
            own_layer.weight.copy_(other_layer.weight)
    else:
        nn.init.ones_(own_layer.weight)
    twin.refresh()
    for own, copied in zip(master.parameters(), twin.network.parameters(), strict=True):
        assert th.equal(own.to(th.bfloat16), copied)


# ------------------------------------------------------------------- in RPG


def assert_twin_follows(model: RPG) -> None:
    master, twin = model.policy, model._twin.network
    assert twin is not master
    for (name, own), copied in zip(master.named_parameters(), twin.parameters(), strict=True):
        assert own.dtype == th.float32 and th.equal(own.to(copied.dtype), copied), name
        assert own.requires_grad == copied.requires_grad, name


@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_rpg_in_bfloat16_learns_with_float32_masters(latent: str) -> None:
    model = small_rpg(labelled_vec_env(2), latent=latent, precision="bf16")
    assert_twin_follows(model)
    before = {name: parameters_of(part) for name, part in model.policy.named_children()}
    model.learn(40)
    assert_twin_follows(model)
    for name, part in model.policy.named_children():
        assert changed(before[name], part) or (name == "posterior" and latent == "none"), name
    assert {p.dtype for p in model._twin.network.posterior.parameters()} <= {th.bfloat16}
    for optimizer in (model.world_model.optimizer, *model._policy_optimizers()):
        for state in optimizer.state.values():
            assert all(value.dtype == th.float32 for value in state.values())


@pytest.mark.parametrize(("kind", "policy"), [("image", "CnnPolicy"), ("dict", "MultiInputPolicy")])
def test_images_and_dicts_in_bfloat16(kind: str, policy: str) -> None:
    model = small_rpg(LabelledEnv(space=kind), policy, buffer_size=30, precision="bf16").learn(16)
    assert_twin_follows(model)
    extractor = model._twin.network.world_model.encoder.features_extractor
    assert extractor is model.world_model.encoder.features_extractor


def test_a_features_extractor_with_batch_normalisation_stays_one_and_float32() -> None:
    class WithBatchNorm(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Box):
            super().__init__(space, features_dim=3)
            self.norm = nn.BatchNorm1d(3)

        def forward(self, obs: th.Tensor) -> th.Tensor:
            assert obs.dtype == self.norm.weight.dtype == th.float32
            return self.norm(obs)

    model = small_rpg(policy_kwargs={**SMALL_POLICY, "features_extractor_class": WithBatchNorm}, precision="bf16")
    before = parameters_of(model.policy)
    model.learn(20)
    norms: Any = (model.world_model.encoder.features_extractor, model.world_model_target.encoder.features_extractor)
    for name, norm in zip(("world_model", "world_model_target"), norms, strict=True):
        prefix = f"{name}.encoder.features_extractor.norm."
        assert not th.equal(before[prefix + "running_mean"], norm.norm.running_mean)
        assert not th.equal(before[prefix + "weight"], norm.norm.weight)
    assert norms[0] is not norms[1]


def test_a_loaded_or_set_master_is_what_is_trained_on() -> None:
    model = small_rpg(precision="bf16").learn(30)
    file = io.BytesIO()
    model.save(file)
    loaded = RPG.load(file, env=labelled_vec_env(), device="cpu")
    assert changed(parameters_of(model.policy), loaded.policy) == set()
    loaded.learn(11, reset_num_timesteps=False)
    assert_twin_follows(loaded)
    other = small_rpg(precision="bf16", seed=9).learn(12)
    parameters: Any = model.get_parameters()
    other.set_parameters(parameters)
    other.update_world_model()
    assert_twin_follows(other)


def test_same_seed_same_parameters_and_near_those_of_float32() -> None:
    first, second = (small_rpg(precision="bf16").learn(30) for _ in range(2))
    assert changed(parameters_of(first.policy), second.policy) == set()
    exact = small_rpg(precision="fp32").learn(13)
    rounded = small_rpg(precision="bf16").learn(13)
    assert np.array_equal(exact.replay_buffer.actions[:10], rounded.replay_buffer.actions[:10])  # masters act
    for (name, a), b in zip(exact.policy.named_parameters(), rounded.policy.parameters(), strict=True):
        assert th.allclose(a, b, atol=3 * 2 * 9e-4 + 1e-6), name  # Adam's step is at most its rate


@pytest.mark.parametrize("latent", LATENT_SPACES)
def test_the_actors_gradients_in_bfloat16_point_where_float32s_do(latent: str) -> None:
    """Through all that lies between: values, rewards, posterior, dynamics."""
    steps = []
    for dtype in (th.float32, th.bfloat16):
        policy = make_policy(latent, sgd=True)
        batch, before = make_batch(policy, batch=64, n_starts=32), parameters_of(policy.actor)
        th.manual_seed(3)
        update_actor(Twin(policy, dtype), batch, make_settings())
        after = parameters_of(policy.actor)
        steps.append(th.cat([(after[name] - before[name]).flatten() for name in before if "head" in name]))
    assert th.cosine_similarity(steps[0], steps[1], dim=0) > 0.97
