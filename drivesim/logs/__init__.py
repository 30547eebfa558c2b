"""Logged drives: one zarr v3 store each (floor 4)."""

from drivesim.logs.drive_log import DriveLog, Frames
from drivesim.logs.schema import MODE_EXPERT, MODE_NOISE, MODE_PLANNER, MODE_RISKY, MODES, LogError, LogLimits
from drivesim.logs.writer import LogHeader, LogWriter

__all__ = [
    "MODES", "MODE_EXPERT", "MODE_NOISE", "MODE_PLANNER", "MODE_RISKY",
    "DriveLog", "Frames", "LogError", "LogHeader", "LogLimits", "LogWriter",
]  # fmt: skip
