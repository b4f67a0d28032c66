"""Registration, and which hyperparameter file an experiment gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sb3_rpg.zoo import config, hyperparams_path
from tests.zoo.conftest import ROOT, Run


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Our hyperparameter folder and RL Zoo's, both made up."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, files in {
        ours: {"rpg": ["Maze-v0"], "sac_rnd": ["default"], "sac": ["default", "Maze-v0", "Both-v0"]},
        theirs: {"sac": ["default", "Both-v0"], "ppo": ["default"]},
    }.items():
        folder.mkdir()
        for name, env_ids in files.items():
            (folder / f"{name}.yml").write_text(yaml.safe_dump({env_id: {"policy": "MlpPolicy"} for env_id in env_ids}))

    def path_in_ours(name: str) -> Path:
        if not (ours / f"{name}.yml").is_file():
            raise FileNotFoundError(name)
        return ours / f"{name}.yml"

    monkeypatch.setattr(config, "hyperparams_path", path_in_ours)
    return ours, theirs


@pytest.mark.parametrize(
    ("algo", "env_id", "is_ours"),
    [
        pytest.param("rpg", "Maze-v0", True, id="our algorithm"),
        pytest.param("rpg", "Other-v0", True, id="our algorithm, unknown environment"),
        pytest.param("sac_rnd", "Other-v0", True, id="our name for SAC"),
        pytest.param("sac", "Maze-v0", True, id="environment that only we have"),
        pytest.param("sac", "Both-v0", False, id="environment that the Zoo has"),
        pytest.param("sac", "Other-v0", False, id="environment that nobody has: the Zoo's default"),
        pytest.param("ppo", "Maze-v0", False, id="algorithm that only the Zoo has"),
    ],
)
def test_default_config(folders: tuple[Path, Path], algo: str, env_id: str, is_ours: bool) -> None:
    ours, theirs = folders
    assert config.default_config(algo, env_id, theirs) == (ours / f"{algo}.yml" if is_ours else None)


@pytest.mark.parametrize("name", ["rpg", "sac", "sac_rnd", "reinforce", "rpg.yml"])
def test_shipped_files_are_in_the_zoos_format(name: str) -> None:
    path = hyperparams_path(name)
    assert path.parent == ROOT / "hyperparams"
    settings = config.load_hyperparams(path)
    # RL Zoo's own file has a default for SAC; REINFORCE is for the bandit alone
    assert ("default" in settings) == (name not in ("sac", "reinforce"))
    for env_id, hyperparams in settings.items():
        assert {"n_timesteps", "policy"} <= set(hyperparams), env_id
        # YAML reads 1e-3 as text: write !!float 1e-3
        for key, value in hyperparams.items():
            assert not isinstance(value, str) or not _is_number(value), f"{env_id}: {key}: {value!r} is text"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_unknown_file_names_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"name='a2c': .*rpg\.yml"):
        hyperparams_path("a2c")


def test_file_without_a_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.yml"
    path.touch()
    with pytest.raises(ValueError, match="holds no mapping"):
        config.load_hyperparams(path)


REPORT = """
import json, sys
{prepare}
import gymnasium, rl_zoo3
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
{repeat}

def config(algo, env_id, **kwargs):
    return ExperimentManager(None, algo, env_id, "logs", **kwargs).config

class Custom(ExperimentManager):
    pass

print(json.dumps({{
    "algos": [algo for algo, cls in rl_zoo3.ALGOS.items() if cls.__name__ in ("RPG", "SAC")],
    "classes": {{algo: cls.__module__ for algo, cls in rl_zoo3.ALGOS.items()}},
    "samplers": sorted({{"rpg", "sac_rnd"}} & set(HYPERPARAMS_SAMPLER) & set(HYPERPARAMS_CONVERTER)),
    "envs": sorted(env_id for env_id in gymnasium.registry if env_id.startswith("RPG")),
    "rpg": config("rpg", "Pendulum-v1"),
    "rpg subclass": Custom(None, "rpg", "Pendulum-v1", "logs").config,
    "rpg with file": config("rpg", "Pendulum-v1", config="mine.yml"),
    "sac known to the Zoo": config("sac", "Pendulum-v1"),
    "sac in the maze": config("sac", "RPGMaze-v0"),
    "sac_rnd": config("sac_rnd", "RPGMaze-v0"),
    "evaluable": eval("sb3_rpg.RPG.__name__", vars(sys.modules["rl_zoo3.exp_manager"])),
}}))
"""


@pytest.mark.parametrize(
    ("hook", "prepare", "repeat"),
    [
        pytest.param(True, "", "", id="hook"),
        pytest.param(False, "from sb3_rpg.zoo import register; register()", "", id="register first", marks=pytest.mark.slow),
        pytest.param(False, "", "from sb3_rpg.zoo import register; register(); register()", id="register last, twice"),
        pytest.param(
            True,
            "import sb3_rpg",
            "from sb3_rpg.zoo import register; register()",
            id="hook and register",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_registration(run: Run, hook: bool, prepare: str, repeat: str) -> None:
    output = run("-W", "error::RuntimeWarning", "-c", REPORT.format(prepare=prepare, repeat=repeat), hook=hook)
    report = json.loads(output.splitlines()[-1])
    assert report["algos"] == ["sac", "rpg", "sac_rnd"]
    assert report["classes"]["rpg"] == "sb3_rpg.rpg"
    assert report["classes"]["sac_rnd"] == report["classes"]["sac"] == "stable_baselines3.sac.sac"
    assert report["samplers"] == ["rpg", "sac_rnd"]
    assert {"RPGBandit-v0", "RPGMaze-v0"} <= set(report["envs"])
    assert report["rpg"] == report["rpg subclass"] == str(ROOT / "hyperparams" / "rpg.yml")
    assert report["rpg with file"] == "mine.yml"
    assert report["sac known to the Zoo"].endswith("rl_zoo3/hyperparams/sac.yml")
    assert report["sac in the maze"] == str(ROOT / "hyperparams" / "sac.yml")
    assert report["sac_rnd"] == str(ROOT / "hyperparams" / "sac_rnd.yml")
    assert report["evaluable"] == "RPG"


def test_register_without_the_zoo_says_what_to_install(run: Run) -> None:
    # PyYAML comes with RL Zoo
    script = "import sys; sys.modules.update(rl_zoo3=None, yaml=None); from sb3_rpg.zoo import register; register()"
    output = run("-c", script, hook=False, expect=1)
    assert "pip install 'sb3_rpg[zoo]'" in output
