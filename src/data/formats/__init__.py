"""Files of annotations and images: JSON, COCO's annotations and masks, categories, image files.

What a data set makes of them is in `src/data`.
"""
