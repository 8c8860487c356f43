"""LightningModules: training a parent, its evaluation with a gate, the oracle pass, gate training, prediction.

Networks, losses and metrics are handed in; nothing here reads data or configuration files.
"""
