"""Images and videos in, predictions as files out.

The task that runs the model is `src/tasks/prediction.py`; `src/predictor.py` is the Python interface.
"""
