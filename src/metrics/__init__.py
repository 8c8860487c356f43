"""How good predictions are and what they cost: PQ, AP, mIoU, and multiply-adds."""
