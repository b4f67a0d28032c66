"""The running statistics against NumPy, and where plain float32 sums would fail."""

import numpy as np
import pytest
import torch as th

from sb3_rpg.intrinsic.statistics import RunningMoments


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments_of_uneven_batches_equal_those_of_all_samples(shape: tuple[int, ...], offset: float) -> None:
    rng = np.random.default_rng(0)
    batches = [(offset + rng.normal(size=(size, *shape))).astype(np.float32) for size in (1, 7, 512, 100, 33)]
    moments = RunningMoments(shape)
    for batch in batches:
        moments.update(th.as_tensor(batch))
    samples = np.concatenate(batches).astype(np.float64)
    np.testing.assert_allclose(moments.mean.numpy(), samples.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.variance.numpy(), samples.var(axis=0), rtol=1e-4)
    assert moments.count.item() == len(samples)


def test_a_batch_that_is_not_used_changes_nothing() -> None:
    moments = RunningMoments()
    moments.update(th.arange(5.0), use=th.tensor(0.0))
    assert (moments.mean.item(), moments.variance.item(), moments.count.item()) == (0.0, 1.0, 0.0)
    moments.update(th.arange(5.0), use=th.tensor(1.0))
    before = {name: value.clone() for name, value in moments.state_dict().items()}
    moments.update(th.full((9,), 100.0), use=th.tensor(0.0))
    assert all(th.equal(value, before[name]) for name, value in moments.state_dict().items())
    assert moments.mean.item() == 2.0


def test_statistics_keep_moving_after_a_million_updates() -> None:
    batch_size, n_before, n_updates = 513, 1_000_000, 10_000
    moments = RunningMoments()
    moments.mean.fill_(1.0)
    moments.variance.fill_(4.0)
    moments.count.fill_(float(n_before * batch_size))
    # Batches of mean 1.02 and variance 4.41, whose increments (2e-8 and 4e-7) are near or below the last bit of the totals
    batch = th.linspace(-1.0, 1.0, batch_size)
    batch = 1.02 + 2.1 * (batch - batch.mean()) / batch.std(correction=0)
    start, plain_mean = float(moments.count), np.float32(1.0)
    for step in range(n_updates):
        moments.update(batch)
        plain_mean += np.float32(batch_size / (start + (step + 1) * batch_size)) * (np.float32(1.02) - plain_mean)
    share = n_updates * batch_size / (start + n_updates * batch_size)
    mean = 1.0 + share * 0.02
    variance = 4.0 + share * (4.41 - 4.0 + (1.0 - share) * 0.02**2)
    # In units of the change, a float32 total of 1 (4) resolves it to 3e-4 (6e-5)
    assert abs(moments.mean.item() - mean) < 5e-4 * (mean - 1.0)
    assert abs(moments.variance.item() - variance) < 5e-4 * (variance - 4.0)
    assert float(moments.count) + float(moments.count_residual) == start + n_updates * batch_size
    assert plain_mean == 1.0, "a plain float32 sum would do as well, and the residuals could go"


def test_constant_samples_are_standardised_to_zero() -> None:
    moments = RunningMoments((2,))
    moments.update(th.tensor([[1.0, 5.0]] * 4))
    assert th.equal(moments.standardize(th.tensor([[1.0, 5.0]])), th.zeros(1, 2))
    assert th.isfinite(moments.standardize(th.tensor([[2.0, 5.0]]))).all()
