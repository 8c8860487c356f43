"""How far predictions are from the truth: Mask2Former's criterion and matcher."""
