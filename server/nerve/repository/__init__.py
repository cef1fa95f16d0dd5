"""The model repository: what is on disk, the state of every version, and who is using it."""
