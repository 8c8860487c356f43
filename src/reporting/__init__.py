"""Reports of runs, made from their folders alone: points of the trade-off as a page, a picture and tables."""
