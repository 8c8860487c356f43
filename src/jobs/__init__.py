"""Commands of this project run side by side, as a sweep or a chain: processes, SLURM jobs, and their results.

What a single run does is not here: the commands at the root of `src` are what a job executes.
"""
