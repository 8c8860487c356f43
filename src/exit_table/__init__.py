"""ECO-M2F's exit table on disk: for each image the quality and cost of every exit, and what a gate sees.

The task that computes the values is `src/tasks/exit_oracle.py`; the data module that feeds them to a gate is
`src/data/gate_data.py`.
"""
