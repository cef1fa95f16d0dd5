"""Executable files with a model in them: their format, their program, and how they are put together."""
