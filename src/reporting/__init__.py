"""What came of runs, read from their folders alone: points of the trade-off, as a page, a picture and a table."""
