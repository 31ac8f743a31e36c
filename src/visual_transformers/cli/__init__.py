"""The command line: what is typed, composed by Hydra, becomes a call of one mode."""
