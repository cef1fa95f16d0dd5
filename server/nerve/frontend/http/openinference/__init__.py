"""The Open Inference Protocol over HTTP (kserve-v2, sections 1 to 6), one module a group of routes."""
