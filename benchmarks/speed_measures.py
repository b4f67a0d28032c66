"""What :mod:`benchmarks.speed` measures, section by section."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC

from benchmarks import speed_cases as cases
from benchmarks.bootstrap import ROOT
from benchmarks.speed_profile import time_by_kind
from benchmarks.timing import Timing, time_in_turn
from sb3_rpg import RPG, presets
from sb3_rpg.buffers import LatentReplayBuffer

PAPER = {**presets.PAPER, "precision": "auto"}


@dataclass(frozen=True)
class Row:
    """
    A line of the table.

    :param section: which measurement
    :param case: what was measured
    :param value: median over repeats
    :param unit: of ``value``
    :param ratio: median of the ratios to the baseline's run in the same repeat; NaN: there is none
    :param ratio_low: its lower quartile
    :param ratio_high: its upper quartile
    :param baseline: what the ratio is to
    """

    section: str
    case: str
    value: float
    unit: str
    ratio: float = float("nan")
    ratio_low: float = float("nan")
    ratio_high: float = float("nan")
    baseline: str = ""


def row(section: str, case: str, timing: Timing, baseline: str, per: float = 1.0, inverse: bool = False) -> Row:
    """
    :param section: which measurement
    :param case: what was measured
    :param timing: its seconds
    :param baseline: what it was timed beside
    :param per: repetitions within a measurement
    :param inverse: whether the ratio is one of speeds instead of times
    :return: the line
    """
    ratios = sorted(timing.ratio(q) ** (-1 if inverse else 1) for q in (0.25, 0.5, 0.75))
    return Row(section, case, timing.median / per * 1e3, "ms", ratios[1], ratios[0], ratios[2], baseline)


def measure_update(smoke: bool) -> Iterator[Row]:
    """One update of everything: bonus, world model, actor, posterior, alpha."""
    repeats, batch = (1, 32) if smoke else (15, cases.BATCH)
    filled = cases.filler(smoke)
    models: dict[str, Any] = {
        "SAC": filled(SAC, batch_size=batch),
        "RPG": filled(RPG, batch_size=batch),
        "RPG, actor at every second update": filled(RPG, batch_size=batch, policy_delay=2),
        "RPG, actor from half of the batch": filled(RPG, batch_size=batch, actor_batch_size=batch // 2),
        "RPG, heads learn from all steps": filled(RPG, batch_size=batch, head_steps=None),
        "RPG, targets of three steps": filled(RPG, batch_size=batch, target_horizon=3),
        "RPG, fp32": filled(RPG, batch_size=batch, precision="fp32"),
        "RPG, preset paper, ReLU and bf16 where the hardware has it": filled(
            RPG, **{**PAPER, "policy_kwargs": {}, "batch_size": batch}
        ),
        "RPG, preset paper, bf16 where the hardware has it": filled(RPG, **{**PAPER, "batch_size": batch}),
        "RPG, preset paper": filled(RPG, **{**presets.PAPER, "batch_size": batch}),
    }
    pieces: dict[str, Callable[[], object]] = {name: cases.update(model) for name, model in models.items()}

    def without_fusing() -> None:
        with cases.plain_layers():
            models["RPG"].train(2, batch)

    pieces["RPG, layers not fused"] = without_fusing
    timings = time_in_turn(pieces, "SAC", repeats)
    for name, timing in timings.items():
        yield row("update", f"{name}, batch {batch}", timing, "SAC", per=2)
    yield from _matmul_share(models["RPG, fp32"], models["RPG"], repeats)


def _matmul_share(counted: RPG, timed: RPG, repeats: int) -> Iterator[Row]:
    flops = cases.count_flops(counted)
    seconds = time_in_turn({"RPG": cases.update(timed)}, "RPG", repeats)["RPG"].median / 2
    yield Row("update", "matrix products of an update", flops / 1e9, "GFLOP")
    yield Row("update", "RPG: matrix products a second", flops / seconds / 1e9, "GFLOP/s")
    for dtype in (th.float32, th.bfloat16):
        product, product_flops = cases.matmul(dtype)
        peak = product_flops / time_in_turn({"product": product}, "product", 3 * repeats)["product"].median
        name = str(dtype).removeprefix("torch.")
        yield Row(
            "update", f"peak: {name} product of 1024 x 1024", peak / 1e9, "GFLOP/s", flops / seconds / peak, baseline="peak"
        )


def measure_cuda(smoke: bool) -> Iterator[Row]:
    """One update on a CUDA device, where there is one."""
    if not th.cuda.is_available():
        print("cuda: skipped, there is no CUDA device")
        return
    repeats, filled = 1 if smoke else 15, cases.filler(smoke)
    name, batch = th.cuda.get_device_name(), 32 if smoke else cases.BATCH
    models: dict[str, Any] = {
        "SAC": filled(SAC, batch_size=batch, device="cuda"),
        "RPG": filled(RPG, batch_size=batch, device="cuda"),
        "RPG, bf16": filled(RPG, batch_size=batch, device="cuda", precision="bf16"),
        "RPG, preset paper": filled(RPG, **{**presets.PAPER, "batch_size": batch, "device": "cuda"}),
    }
    pieces = {label: cases.waited_for(cases.update(model)) for label, model in models.items()}
    for label, timing in time_in_turn(pieces, "SAC", repeats).items():
        yield row("cuda", f"{label}, batch {batch}, {name}", timing, "SAC", per=2)
    graph = cases.waited_for(cases.captured_update(models["RPG"]))
    timing = time_in_turn({"graph": graph}, "graph", repeats)["graph"]
    yield Row("cuda", f"RPG's model, actor and posterior as a CUDA graph, batch {batch}, {name}", timing.median * 1e3, "ms")


def measure_profile(smoke: bool) -> Iterator[Row]:
    """An update's time by kind of operation; ``ratio`` is the share."""
    batch, n_updates = (16, 2) if smoke else (256, 40)
    filled = cases.filler(smoke)
    settings: dict[str, dict[str, Any]] = {
        "default": {},
        "fp32, heads learn from all steps": {"precision": "fp32", "head_steps": None},
    }
    for name, arguments in settings.items():
        spent = time_by_kind(filled(RPG, batch_size=batch, **arguments), n_updates)
        for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
            share = seconds / sum(spent.values())
            yield Row("profile", f"{name}, batch {batch}: {kind}", seconds * 1e3, "ms", share, baseline="the update")


def measure_compile(smoke: bool) -> Iterator[Row]:
    """``torch.compile`` instead of the fused layers: its first updates, and an update afterwards."""
    batch = 16 if smoke else 256
    filled = cases.filler(smoke)
    eager, compiled = filled(RPG, batch_size=batch), filled(RPG, batch_size=batch)
    cases.compile_networks(compiled, "eager" if smoke else "inductor")

    def train_compiled() -> None:
        with cases.plain_layers():
            compiled.train(2, batch)

    with th.compiler.config.patch(force_disable_caches=True):  # type: ignore[attr-defined]
        # earlier runs of this benchmark leave compiled code on the disk
        first = time_in_turn({"first": train_compiled}, "first", 1, warmup=0)["first"]
    yield Row("compile", f"first two updates, batch {batch}", first.median * 1e3, "ms")
    pieces: dict[str, Callable[[], object]] = {"eager": cases.update(eager), "compiled": train_compiled}
    for name, timing in time_in_turn(pieces, "eager", 1 if smoke else 11).items():
        yield row("compile", f"{name}, batch {batch}", timing, "eager", per=2)


def measure_learn(smoke: bool) -> Iterator[Row]:
    """Environment steps a second of ``learn()`` with default settings, after the steps before the first update."""
    import gymnasium as gym
    from stable_baselines3.common.env_util import make_vec_env

    try:
        gym.make("HalfCheetah-v5").close()
    except (ImportError, gym.error.Error) as error:
        print(f"learn: skipped, HalfCheetah-v5 is not available ({error})")
        return
    repeats, steps = (1, 20) if smoke else (7, 400)
    fast: dict[str, Any] = {"learning_starts": 20} if smoke else {}
    for n_envs in (1, 5):
        models: dict[str, Any] = {
            "SAC": SAC("MlpPolicy", make_vec_env("HalfCheetah-v5", n_envs), device="cpu", seed=0, **fast),
            "RPG": RPG("MlpPolicy", make_vec_env("HalfCheetah-v5", n_envs), device="cpu", seed=0, **fast),
        }
        if n_envs == 1:
            env = make_vec_env("HalfCheetah-v5")
            paper: dict[str, Any] = {"train_freq": 5, "policy_delay": 2}
            models["RPG, updates as in the paper"] = RPG("MlpPolicy", env, device="cpu", seed=0, **paper, **fast)
        if n_envs > 1:
            env = make_vec_env("HalfCheetah-v5", n_envs)
            models["SAC, gradient_steps=-1"] = SAC("MlpPolicy", env, device="cpu", seed=0, gradient_steps=-1, **fast)
        for model in models.values():
            model.learn(model.learning_starts + 10 * n_envs, log_interval=None)
        timings = time_in_turn({name: cases.collect(model, steps) for name, model in models.items()}, "SAC", repeats, 1)
        for name, timing in timings.items():
            line = row("learn", f"{name}, HalfCheetah-v5, n_envs={n_envs}", timing, "SAC", inverse=True)
            yield Row(**{**asdict(line), "value": steps / timing.median, "unit": "steps/s"})


def measure_predict(smoke: bool) -> Iterator[Row]:
    """``predict`` within an episode: z is drawn at its start only."""
    repeats, calls = (1, 2) if smoke else (21, 100)
    filled = cases.filler(smoke)
    models: dict[str, Any] = {"SAC": filled(SAC), "RPG": filled(RPG)}

    def repeated(piece: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(calls):
                piece()

        return run

    for n_envs in (1, 16):
        pieces = {name: repeated(cases.act(model, n_envs)) for name, model in models.items()}
        for name, timing in time_in_turn(pieces, "SAC", repeats).items():
            yield row("predict", f"{name}, {n_envs} environments", timing, "SAC", per=calls)


def measure_buffer(smoke: bool) -> Iterator[Row]:
    """Sampling from a full buffer, and its memory against what it has to hold."""
    size, n_envs = (5000, 5) if smoke else (800_000, 5)
    env = cases.NoiseEnv()
    buffer = LatentReplayBuffer(size, env.observation_space, env.action_space, n_envs=n_envs, latent_dim=12)
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 1, (n_envs, cases.OBS_DIM)).astype(np.float32)
    action, z = rng.uniform(-1, 1, (n_envs, cases.ACTION_DIM)).astype(np.float32), rng.normal(size=(n_envs, 12))
    for step in range(size // n_envs):
        buffer.stage(z, np.full(n_envs, step % 50 == 0))
        buffer.add(obs, obs, action, np.zeros(n_envs), np.full(n_envs, step % 50 == 49), [{}] * n_envs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pieces: dict[str, Callable[[], object]] = {
        "segments": lambda: buffer.sample_segments(cases.BATCH, 3),
        "states": lambda: buffer.sample_states(cases.BATCH),
        "transitions (SB3's sample)": lambda: buffer.sample(cases.BATCH),
    }
    for name, timing in time_in_turn(pieces, "transitions (SB3's sample)", 1 if smoke else 200).items():
        yield row("buffer", f"sampling 512 {name} of {size:,}", timing, "SB3's sample")
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    yield Row("buffer", "growth of peak memory while sampling", growth / 1024, "MiB")
    arrays = [value for value in vars(buffer).values() if isinstance(value, np.ndarray)]
    held = sum(array.nbytes for array in arrays) + buffer.start_index._places.nbytes
    # obs, next obs, action and z in float32; reward in float32; done, timeout and episode start as a byte
    minimum = size * (4 * (2 * cases.OBS_DIM + cases.ACTION_DIM + 12 + 1) + 3)
    yield Row("buffer", f"memory of {size:,} transitions", held / 2**20, "MiB", held / minimum, baseline="minimum")


def measure_startup(smoke: bool) -> Iterator[Row]:
    """What ``import sb3_rpg`` adds to ``import stable_baselines3``, and the start-up hook to the interpreter's start."""
    repeats = 1 if smoke else 15
    template = "import time; import {0}; t = time.perf_counter(); import {1}; print(time.perf_counter() - t)"
    added = [_printed(template.format("stable_baselines3", "sb3_rpg")) for _ in range(repeats)]
    alone = [_printed(template.format("sys", "stable_baselines3")) for _ in range(repeats)]
    yield Row("startup", "import stable_baselines3", float(np.median(alone)) * 1e3, "ms")
    yield Row("startup", "import sb3_rpg after it", float(np.median(added)) * 1e3, "ms")
    # As the installed .pth does: the file alone, from its compiled copy, without the package around it. A module that does
    # nothing goes first, as the folder of installed packages has been read by then
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nothing.py").touch()
        shutil.copy(ROOT / "sb3_rpg" / "zoo" / "startup_hook.py", folder)
        hook = (
            f"import sys, time; sys.path.insert(0, {folder!r}); import nothing; t = time.perf_counter(); "
            "import startup_hook; startup_hook.install(); print(time.perf_counter() - t)"
        )
        _printed(hook)  # compiles
        seconds = [_printed(hook) for _ in range(repeats)]
    yield Row("startup", "the interpreter's hook", float(np.median(seconds)) * 1e3, "ms")


def _printed(code: str) -> float:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(finished.stdout)


def measure_scaling(smoke: bool) -> Iterator[Row]:
    """An update against each size alone, the others at their defaults; ``ratio`` is to the smallest."""
    sizes: dict[str, list[tuple[int, dict[str, Any]]]] = {
        "batch_size": [(n, {"batch_size": n}) for n in (128, 256, 512, 1024)],
        "horizon": [(n, {"horizon": n}) for n in (1, 2, 4, 8)],
        "latent_dim": [(n, {"latent_dim": n}) for n in (3, 12, 48, 192)],
        "width": [(n, {"policy_kwargs": {"net_arch": [n, n], "hidden_dim": n}}) for n in (64, 128, 256, 512)],
        "n_critics": [(n, {"policy_kwargs": {"n_critics": n}}) for n in (1, 2, 4, 8)],
        "observation": [(n, {"obs_dim": n}) for n in (11, 28, 105, 348)],
    }
    for size, points in sizes.items():
        chosen = points[:2] if smoke else points
        batch = {"batch_size": 16} if smoke else {"batch_size": 256}
        models = {value: cases.filler(smoke)(RPG, **{**batch, **arguments}) for value, arguments in chosen}
        pieces = {f"{size}={value}": cases.update(model) for value, model in models.items()}
        baseline = next(iter(pieces))
        for name, timing in time_in_turn(pieces, baseline, 1 if smoke else 11).items():
            yield row("scaling", name, timing, baseline, per=2)


SECTIONS = {
    "update": measure_update,
    "profile": measure_profile,
    "compile": measure_compile,
    "learn": measure_learn,
    "predict": measure_predict,
    "buffer": measure_buffer,
    "startup": measure_startup,
    "scaling": measure_scaling,
    "cuda": measure_cuda,
}
