"""Tasks: losses and scores."""

from visual_transformers.tasks.task import Classification, Segmentation, Task

__all__ = ["Classification", "Segmentation", "Task"]
