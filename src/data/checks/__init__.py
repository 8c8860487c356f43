"""Data sets looked over: problems of images, counts of classes, images left out.

What a single file may contain is checked where it is read, in `src/data/formats`.
"""
