"""Images with their annotations, from files to batches.

`formats` reads files of annotations and images, `checks` looks data sets over. Exit tables are in `src/exit_table`;
images to predict, which have no annotations, are in `src/prediction`.
"""
