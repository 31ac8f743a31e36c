"""Loggers of a run's progress. All of them receive the same records."""

from visual_transformers.loggers.base import Logger, Loggers, RunInfo
from visual_transformers.loggers.console import Console
from visual_transformers.loggers.files import Files
from visual_transformers.loggers.records import Record, read_records
from visual_transformers.loggers.tensorboard import TensorBoard
from visual_transformers.loggers.wandb import WandB

__all__ = ["Console", "Files", "Logger", "Loggers", "Record", "RunInfo", "TensorBoard", "WandB", "read_records"]
