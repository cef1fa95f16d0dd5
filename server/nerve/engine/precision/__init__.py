"""Graphs in another number format, rewritten before they are loaded; the only home of `onnx`."""
