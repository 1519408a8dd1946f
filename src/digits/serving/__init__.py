"""Answers without TensorFlow: a network as ONNX, and the classifier that runs it."""
