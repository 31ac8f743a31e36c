"""What a training run is made of: device, schedules, steps, checkpoints, interruption."""
