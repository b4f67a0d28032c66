"""Where matrix products run in bfloat16: masters stay float32, losses and log-probabilities are float32."""

import torch as th

PRECISIONS = ("auto", "bf16", "fp32")


def resolve_precision(precision: str, device: th.device) -> th.dtype:
    """
    :param precision: one of ``PRECISIONS``; "auto": bf16 where the hardware has instructions that multiply it faster
        (CPUs with AMX or AVX512-BF16, CUDA devices from Ampere on), else fp32
    :param device: where the networks are
    :return: the dtype of matrix products
    """
    if precision == "fp32":
        return th.float32
    if precision == "bf16":
        return th.bfloat16
    if device.type == "cuda":
        return th.bfloat16 if th.cuda.get_device_capability(device)[0] >= 8 else th.float32
    if device.type == "cpu":
        # Without these instructions bf16 is emulated and slower than fp32. torch has no public query for them.
        queries = [getattr(th.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
        return th.bfloat16 if any(query is not None and query() for query in queries) else th.float32
    return th.float32


def autocast_context(dtype: th.dtype, device: th.device) -> th.autocast:
    """
    :param dtype: of matrix products
    :param device: where the networks are
    :return: a reusable context; does nothing for float32
    """
    return th.autocast(device.type, dtype=th.bfloat16, enabled=dtype == th.bfloat16)
