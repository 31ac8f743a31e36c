"""Training run: components, trainer, step, schedules, distillation and evaluation."""
