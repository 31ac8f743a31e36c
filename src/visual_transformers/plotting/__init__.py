"""Figures of runs and images."""
