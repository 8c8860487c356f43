"""An ONNX model in onnxruntime, on a CPU."""

from pathlib import Path

import numpy as np


class Session:
    """Runs a model, a file or its serialised content, on named inputs; it takes those that it knows."""

    def __init__(self, model: Path | bytes):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        source = str(model) if isinstance(model, Path) else model
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.names = [one.name for one in self.session.get_outputs()]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        taken = {one.name: inputs[one.name] for one in self.session.get_inputs()}
        return dict(zip(self.names, self.session.run(None, taken), strict=True))
