"""Answers that are kept, a text each; a wrapper around a loaded model, see `nerve.caching.model`."""
