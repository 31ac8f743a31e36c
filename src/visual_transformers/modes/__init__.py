"""Modes of the command line: `mode=NAME` calls `run(cfg, directory)` of the module NAME."""
