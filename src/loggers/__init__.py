"""Loggers for CSV files, W&B, TensorBoard and MLflow, with the same names of scores in each."""
