"""From a trained model to a folder of ONNX files with a manifest, checked against torch, for machines without torch."""
