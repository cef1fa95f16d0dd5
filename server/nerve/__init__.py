"""Nerve: a model-repository inference server for ONNX named-entity-recognition models."""

__version__ = "0.1.0"
