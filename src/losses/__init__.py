"""How far predictions are from the truth: criteria and matchers of masks and of boxes."""
