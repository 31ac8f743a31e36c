"""Command line: Hydra composes the configuration, and one mode runs it."""
