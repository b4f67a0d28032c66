"""The version, in one place for packaging and for saved models."""

from pathlib import Path

__version__ = Path(__file__).with_name("version.txt").read_text().strip()
