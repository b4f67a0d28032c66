"""Packaging of sb3_rpg, with the start-up hook that makes RL Zoo know the algorithm right after ``pip install``."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
HOOK = "_sb3_rpg_zoo_hook"


class BuildWithStartupHook(build_py):
    """
    Writes the start-up hook beside the packages, in wheels and in editable installs alike.

    The hook is a copy, never a link into the checkout: moving or deleting an editable checkout must not
    break the start of the interpreter.
    """

    def hook_files(self) -> dict[str, str]:
        """
        :return: the hook's files, by name, with their content
        """
        module = (ROOT / "sb3_rpg" / "zoo" / "startup_hook.py").read_text(encoding="utf-8")
        return {
            f"{HOOK}.py": module,
            # Up to Python 3.14, `site` executes the import lines of .pth files
            f"{HOOK}.pth": f"import {HOOK}; {HOOK}.install()\n",
            # From Python 3.15 on, it calls what .start files name and skips the import lines beside them (PEP 829)
            f"{HOOK}.start": f"{HOOK}:install\n",
        }

    def hook_folder(self) -> Path:
        """
        :return: the folder whose content becomes that of site-packages
        """
        if self.editable_mode:
            # An editable wheel links or maps what is in build_lib, but packs install_lib as it is
            return Path(self.get_finalized_command("install").install_lib)
        return Path(self.build_lib)

    def run(self) -> None:
        super().run()
        folder = self.hook_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.hook_files().items():
            (folder / name).write_text(content, encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        return outputs + [str(self.hook_folder() / name) for name in self.hook_files()]


# Stable-Baselines3, sb3-contrib and RL Zoo are released together: the current minor version and the one before
SB3_RELEASES = ">=2.8.0,<2.10"

EXTRAS = {
    # `python -m rl_zoo3.train --algo rpg` and its peers.
    # rl-zoo3 imports sb3-contrib on start; requests, seaborn, scipy, matplotlib and pandas are used by `enjoy`, by the
    # plot commands and by `--optimize-hyperparameters`, but it does not declare them; moviepy records videos, and
    # pygame-ce opens the window that `enjoy` shows unless told `--no-render`.
    "zoo": [
        f"rl-zoo3{SB3_RELEASES}",
        f"sb3-contrib{SB3_RELEASES}",
        "matplotlib>=3.7",
        "moviepy>=2.0",
        "pandas>=2.2",
        "pygame-ce>=2.1.3",
        "requests>=2.28",
        "rich>=13.0",
        "scipy>=1.10",
        "seaborn>=0.13",
        "tqdm>=4.60",
    ],
    # Learning curves, statistics over seeds, pictures of modes
    "plots": [
        "matplotlib>=3.7",
        "pandas>=2.2",
        "rliable>=1.2,<2",
        "scipy>=1.10",
        "seaborn>=0.13",
    ],
    # Simulated robots. MuJoCo 3.12 breaks the Fetch tasks of gymnasium-robotics
    "envs": [
        "gymnasium-robotics>=1.4",
        "metaworld>=3.0",
        "mujoco>=3.3.0,<3.12",
    ],
    # sb3_rpg.modes: clusters of trajectories
    "modes": [
        "matplotlib>=3.7",
        "pillow>=10.1",
        "scikit-learn>=1.4",
    ],
    # sb3_rpg.export.to_onnx
    "export": [
        "onnx>=1.17",
        "onnxscript>=0.5",
    ],
    # Agents on the Hugging Face Hub
    "hub": ["sb3-team-hf-integration>=1.0"],
    # docs/tutorial.ipynb: pictures and modes, and a Jupyter kernel that `python3 -m benchmarks.tutorial` runs it in
    "tutorial": [
        "ipykernel>=6.29",
        "matplotlib>=3.7",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "scikit-learn>=1.4",
    ],
    # benchmarks.run --engine ray
    "ray": ["ray>=2.9"],
    # What `python3 -m tests` runs, beside the extras "zoo" and "plots"
    "tests": [
        "hypothesis>=6.100",
        "ipykernel>=6.29",
        "mujoco>=3.3.0,<3.12",
        "mypy>=1.11",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "onnx>=1.17",
        "onnxruntime>=1.20",
        "onnxscript>=0.5",
        "packaging>=23.0",
        "pytest>=8.0",
        "pytest-xdist>=3.5",
        "ruff>=0.9",
        "scikit-learn>=1.4",
        "setuptools>=64",
    ],
}
EXTRAS["all"] = sorted({requirement for name in ("zoo", "plots", "envs", "modes", "export") for requirement in EXTRAS[name]})

readme = ROOT / "README.md"

setup(
    name="sb3_rpg",
    version=(ROOT / "sb3_rpg" / "version.txt").read_text(encoding="utf-8").strip(),
    description="Reparameterized Policy Gradient (RPG) for Stable-Baselines3: multimodal model-based reinforcement learning",
    long_description=readme.read_text(encoding="utf-8") if readme.is_file() else "",
    long_description_content_type="text/markdown",
    author="sb3_rpg contributors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=[
        "exploration",
        "gymnasium",
        "model-based-reinforcement-learning",
        "pytorch",
        "reinforcement-learning",
        "rl-zoo",
        "stable-baselines3",
        "world-model",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    install_requires=[
        f"stable-baselines3{SB3_RELEASES}",
        "gymnasium>=1.0,<2.0",
        "numpy>=1.24,<3.0",
        "tensorboard>=2.9.1",
        "torch>=2.8,<3.0",
    ],
    extras_require=EXTRAS,
    # The settings for RL Zoo live at the top of the checkout, as in RL Zoo itself, and ship inside the package
    packages=[*find_packages(include=["sb3_rpg", "sb3_rpg.*"]), "sb3_rpg.hyperparams"],
    package_dir={"sb3_rpg.hyperparams": "hyperparams"},
    package_data={"sb3_rpg": ["py.typed", "version.txt"], "sb3_rpg.hyperparams": ["*.yml"]},
    cmdclass={"build_py": BuildWithStartupHook},
    zip_safe=False,
)
