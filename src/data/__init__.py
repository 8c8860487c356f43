"""Images with their annotations, from files to batches.

`formats` reads files of annotations and images, `checks` validates data sets. Exit tables are in `src/exit_table`;
images to predict, which have no annotations, are in `src/prediction`.
"""
