"""Run commands of this project side by side, as a sweep or a chain, as processes or SLURM jobs, and show their results.

What a single job does is not here: jobs execute the commands at the root of `src`.
"""
