"""Checkpoint files from anywhere, read safely and mapped onto the parameters of our models."""
