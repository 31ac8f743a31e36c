"""What `mode=NAME` runs; each module defines `run(cfg, directory)`."""
