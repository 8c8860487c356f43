"""Files of annotations and images: JSON, COCO's annotations and masks, categories, image files.

The data sets that use them are in `src/data`.
"""
