"""Networks: images to masks and classes at every exit, and the gate.

Plain PyTorch: no Lightning, no configuration, no data, no losses.
"""
