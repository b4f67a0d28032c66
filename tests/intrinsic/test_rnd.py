"""Random network distillation: novelty, the bonus made of it, its statistics, precision and state."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_rpg.intrinsic import RND, IntrinsicReward, make_intrinsic_reward

OBS = spaces.Box(-1, 1, (3,))
ACT = spaces.Box(-1, 1, (2,))


def make_rnd(seed: int = 0, **kwargs: Any) -> RND:
    th.manual_seed(seed)
    return RND(OBS, ACT, **{"width": 32, "device": "cpu", "warmup_updates": 0, **kwargs})


def batch(n: int = 64, low: float = -1.0, high: float = 0.0) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    return th.zeros(n, 3), th.zeros(n, 2), low + (high - low) * th.rand(n, 3)


def state_of(rnd: IntrinsicReward) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in rnd.state_dict().items()}


def assert_same(first: dict[str, th.Tensor], second: dict[str, th.Tensor], prefix: str = "") -> None:
    assert first.keys() == second.keys()
    assert all(th.equal(first[name], second[name]) for name in first if name.startswith(prefix))


def test_error_falls_where_it_is_trained_and_stays_elsewhere() -> None:
    rnd = make_rnd(width=128, indices=":", object_scale=2.0)
    seen, unseen = batch(256), batch(256, 0.5, 1.0)
    before = rnd.errors(*seen).mean()
    for _ in range(200):
        rnd.update(*batch(256))
    after_seen, after_unseen = rnd.errors(*seen).mean(), rnd.errors(*unseen).mean()
    assert after_seen < before / 10
    assert after_unseen > 5 * after_seen
    assert rnd.bonus(*unseen).mean() > rnd.bonus(*seen).mean()


def test_error_is_the_sum_of_squares_and_the_loss_its_mean() -> None:
    rnd = make_rnd(normalize=False)
    transitions = batch()
    features = rnd.features(transitions[2])
    expected = (rnd.predictor(features) - rnd.target(features)).pow(2).sum(dim=1)
    th.testing.assert_close(rnd.errors(*transitions), expected)
    metrics = rnd.update(*transitions)
    th.testing.assert_close(metrics["loss"], expected.mean().detach())
    th.testing.assert_close(metrics["error_mean"], expected.mean().detach())


def test_bonus_is_scale_times_the_clipped_normalised_error() -> None:
    rnd = make_rnd(scale=0.3, clip=1.5)
    for _ in range(10):
        rnd.update(*batch())
    transitions = batch(256, -1, 1)
    errors = rnd.errors(*transitions).detach().numpy()
    mean, std = rnd.statistics.mean.numpy(), np.sqrt(rnd.statistics.variance.numpy())
    expected = 0.3 * np.clip((errors - mean) / std, -1.5, 1.5)
    assert make_rnd(clip=float("inf")).clip == float("inf")
    bonus = rnd.bonus(*transitions)
    np.testing.assert_allclose(bonus.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert bonus.max().item() == pytest.approx(0.3 * 1.5)
    assert bonus.shape == (256,)
    assert bonus.dtype == th.float32
    assert not bonus.requires_grad


def test_statistics_are_those_of_all_training_errors() -> None:
    rnd = make_rnd(normalize=False)
    seen = []
    for size in (64, 64, 17, 128):
        transitions = batch(size)
        seen.append(rnd.errors(*transitions).detach().numpy())
        rnd.update(*transitions)
        rnd.bonus(*batch(50, -1, 1))  # asking does not count
    errors = np.concatenate(seen).astype(np.float64)
    np.testing.assert_allclose(rnd.statistics.mean.item(), errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(rnd.statistics.variance.item(), errors.var(), rtol=1e-4)
    assert rnd.statistics.count == len(errors)


def test_first_hundred_updates_stay_out_of_the_statistics() -> None:
    rnd = RND(OBS, ACT, width=4, device="cpu")
    for _ in range(100):
        rnd.update(*batch(8))
        assert not rnd.bonus(*batch(8)).any()
    transitions = batch(8)
    rnd.features.observe(transitions[2])  # as the update will do before it asks for errors
    rnd.features.statistics = copy.deepcopy(rnd.features.statistics)
    metrics = rnd.update(*transitions)
    assert rnd.statistics.count == 8
    th.testing.assert_close(rnd.statistics.mean, metrics["error_mean"])
    assert rnd.bonus(*batch(8)).any()


def test_bonus_changes_nothing_and_update_not_the_target() -> None:
    rnd = make_rnd()
    rnd.update(*batch())
    before = state_of(rnd)
    rnd.bonus(*batch())
    assert_same(before, state_of(rnd))
    gradients = [parameter.grad for parameter in rnd.target.parameters()]
    rnd.update(*batch())
    after = state_of(rnd)
    assert_same(before, after, "target")
    assert gradients == [None] * 6
    assert not any(th.equal(before[name], after[name]) for name in before if name.startswith("predictor"))
    assert {id(p) for group in rnd.optimizer.param_groups for p in group["params"]} == set(map(id, rnd.predictor.parameters()))


def test_update_needs_no_gradient_mode_and_leaves_no_graph() -> None:
    rnd = make_rnd()
    before = state_of(rnd)
    with th.no_grad():
        metrics = rnd.update(*batch())
    assert not th.equal(before["predictor.0.weight"], rnd.state_dict()["predictor.0.weight"])
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


def test_optimizer_is_adam_as_in_the_paper() -> None:
    group = make_rnd().optimizer.param_groups[0]
    assert (group["lr"], group["eps"], group["weight_decay"]) == (3e-4, 1e-8, 0)


def test_autocast_does_not_reuse_weights_of_before_an_update() -> None:
    one_context, many_contexts, single = make_rnd(), make_rnd(), make_rnd()
    batches = [batch(256) for _ in range(6)]
    with th.autocast("cpu", th.bfloat16):
        one_context.bonus(*batches[0])
        for transitions in batches:
            one_context.update(*transitions)
    for transitions in batches:
        with th.autocast("cpu", th.bfloat16):
            many_contexts.update(*transitions)
        single.update(*transitions)
    assert_same(state_of(one_context), state_of(many_contexts))
    assert not th.equal(state_of(single)["predictor.2.weight"], state_of(many_contexts)["predictor.2.weight"])


def test_autocast_keeps_the_ranking_and_float32_results() -> None:
    rnd = make_rnd(width=128, indices=":")
    for _ in range(100):
        with th.autocast("cpu", th.bfloat16):
            metrics = rnd.update(*batch(128))
    transitions = batch(512, -1.0, 1.0)
    exact = rnd.bonus(*transitions)
    with th.autocast("cpu", th.bfloat16):
        rough = rnd.bonus(*transitions)
    assert rough.dtype == rnd.statistics.mean.dtype == metrics["loss"].dtype == th.float32
    ranks = [bonus.argsort().argsort().double() for bonus in (exact, rough)]
    assert th.corrcoef(th.stack(ranks))[0, 1] > 0.999


def test_state_dict_is_all_float_and_carries_the_statistics() -> None:
    rnd, other = make_rnd(), make_rnd(seed=1)
    for _ in range(3):
        rnd.update(*batch())
    state = rnd.state_dict()
    assert all(value.is_floating_point() for value in state.values())
    assert {"statistics.mean", "statistics.variance", "statistics.count", "n_updates"} <= set(state)
    other.load_state_dict(state)
    transitions = batch()
    assert th.equal(rnd.bonus(*transitions), other.bonus(*transitions))
    other.load_state_dict({name: th.rand_like(value) for name, value in state.items()})


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda rnd: pickle.loads(pickle.dumps(rnd))])
def test_copies_go_on_alike(duplicate: Any) -> None:
    rnd = make_rnd()
    for _ in range(3):
        rnd.update(*batch())
    other = duplicate(rnd)
    for transitions in [batch() for _ in range(3)]:
        rnd.update(*transitions)
        other.update(*transitions)
    assert_same(state_of(rnd), state_of(other))
    assert other.optimizer.param_groups[0]["params"][0] is other.predictor[0].weight


def test_optimizer_follows_to_another_device() -> None:
    rnd = make_rnd()
    rnd.update(*batch())
    rnd.to("meta")
    assert rnd.device.type == "meta"
    moments = [value for state in rnd.optimizer.state.values() for value in state.values()]
    assert len(moments) == 18
    assert {value.device.type for value in moments} == {"meta"}
    assert rnd.update(*[part.to("meta") for part in batch()])["loss"].device.type == "meta"


def test_registry() -> None:
    assert isinstance(make_intrinsic_reward("rnd", OBS, ACT, device="cpu", width=8), RND)
    assert isinstance(make_intrinsic_reward("RND", OBS, ACT, device="cpu", width=8), RND)
    assert isinstance(make_intrinsic_reward(RND, OBS, ACT, device="cpu", width=8), RND)
    assert make_intrinsic_reward(None, OBS, ACT) is None
    assert make_intrinsic_reward("none", OBS, ACT, indices=[0]) is None
    with pytest.raises(ValueError, match=r"Unknown intrinsic reward 'rdn'; known are .*'rnd'.*'none'"):
        make_intrinsic_reward("rdn", OBS, ACT)
    with pytest.raises(ValueError, match="a name or a subclass"):
        make_intrinsic_reward(dict, OBS, ACT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"clip": 0}, "`clip`"), ({"learning_rate": -1.0}, "`learning_rate`"), ({"warmup_updates": -1}, "`warmup_updates`")],
)
def test_wrong_numbers_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rnd(**arguments)
