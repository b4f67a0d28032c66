"""See when training goes wrong: what is measured, what is judged by it, and what to do."""

from sb3_rpg.diagnostics.callback import DiagnosticsCallback
from sb3_rpg.diagnostics.detectors import FAILURES, Detector, Failure, TrainingWarning
from sb3_rpg.diagnostics.probe import measure

__all__ = ["FAILURES", "Detector", "DiagnosticsCallback", "Failure", "TrainingWarning", "measure"]
