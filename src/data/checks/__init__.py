"""Checks of data sets: problems of images, class counts, images to leave out.

The content of a single file is checked where it is read, in `src/data/formats`.
"""
