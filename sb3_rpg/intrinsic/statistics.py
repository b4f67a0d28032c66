"""Cumulative mean and variance of a stream of batches, kept in float32 without losing accuracy over millions of updates."""

import torch as th
from torch import nn


class RunningMoments(nn.Module):
    """
    Cumulative mean and (population) variance, merged batch by batch.

    Batches are merged by the parallel form of Chan et al. (1979), written as increments: with ``w`` the share of the new
    batch in the enlarged sample and ``delta`` the difference of the two means,

    - ``mean += w * delta``
    - ``variance += w * (batch_variance - variance + (1 - w) * delta ** 2)``.

    No sum of squares is formed, so nothing cancels where the mean is large against the standard deviation. What remains
    is that ``w`` shrinks as ``1 / n``: after some 1e5 batches an increment comes near the last bit of a float32 and plain
    addition would round it away, and a float32 count of samples would stop growing at 2 ** 24. Float64 would cure both,
    but MPS devices have none, so each total carries the part that its rounding lost (Kahan summation). Its error does not
    depend on the number of batches.

    All buffers are floating point: tools that perturb a state dict (``th.rand_like``) need not treat them apart.

    :param shape: Shape of one sample, ``()`` for scalars.
    """

    mean: th.Tensor
    variance: th.Tensor
    count: th.Tensor
    mean_residual: th.Tensor
    variance_residual: th.Tensor
    count_residual: th.Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        for name, buffer_shape in (("mean", shape), ("variance", shape), ("count", ())):
            self.register_buffer(name, th.zeros(buffer_shape))
            self.register_buffer(f"{name}_residual", th.zeros(buffer_shape))
        self.variance.fill_(1.0)

    @th.no_grad()
    def update(self, batch: th.Tensor, use: th.Tensor | None = None) -> None:
        """
        Merge one batch.

        :param batch: Samples, (B, \\*shape), float32.
        :param use: 0-d tensor, 1 to merge the batch, 0 to leave the statistics as they are. A tensor rather than a bool
            so that a condition computed on an accelerator need not be waited for.
        """
        size = th.full_like(self.count, batch.shape[0]) if use is None else use * batch.shape[0]
        batch_variance, batch_mean = th.var_mean(batch, dim=0, correction=0)
        share = size / (self.count + size).clamp_min(1.0)
        delta = batch_mean - self.mean
        variance_increment = share * (batch_variance - self.variance + (1.0 - share) * delta.square())
        self._add(self.mean, self.mean_residual, share * delta)
        self._add(self.variance, self.variance_residual, variance_increment)
        self._add(self.count, self.count_residual, size)

    def standardize(self, values: th.Tensor, epsilon: float = 0.0) -> th.Tensor:
        """
        :param values: Values of any shape ending in ``shape``.
        :param epsilon: Added to the variance, for samples some of whose components never change.
        :return: ``(values - mean) / std``; the standard deviation is at least 1e-8.
        """
        return (values - self.mean) / (self.variance + epsilon).sqrt().clamp_min(1e-8)

    @staticmethod
    def _add(total: th.Tensor, residual: th.Tensor, increment: th.Tensor) -> None:
        corrected = increment + residual
        enlarged = total + corrected
        residual.copy_(corrected - (enlarged - total))
        total.copy_(enlarged)
