"""Recording drives in the embedded town into logs (floor 5: it joins worlds, planning, control and logs)."""

from drivesim.recording.config import HELD_OUT_WEATHERS, TRAINING_WEATHERS, RecordConfig
from drivesim.recording.episode import DriveSummary
from drivesim.recording.recorder import open_logs, record, record_one
from drivesim.recording.statistics import LogStatistics, log_statistics

__all__ = [
    "HELD_OUT_WEATHERS", "TRAINING_WEATHERS",
    "DriveSummary", "LogStatistics", "RecordConfig", "log_statistics", "open_logs", "record", "record_one",
]  # fmt: skip
