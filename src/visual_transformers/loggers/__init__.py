"""Where a run's progress goes. All loggers get the same records."""

from visual_transformers.loggers.console import Console
from visual_transformers.loggers.files import Files, read_records
from visual_transformers.loggers.logger import Logger, Loggers, Record, RunInfo

__all__ = ["Console", "Files", "Logger", "Loggers", "Record", "RunInfo", "read_records"]
