"""Whether a gate earns its keep: read gates and exit tables, compare with fixed exits, chance and the noise ceiling.

The mathematics is in `src/metrics/routing.py`, `src/metrics/noise_ceiling.py` and `src/metrics/bootstrap.py`.
"""
