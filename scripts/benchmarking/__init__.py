"""The parts of `python -m scripts.benchmark`: models, what they are timed at, memory, and the report."""
