"""Processes and devices: launch, collectives, hardware, requests to stop."""
