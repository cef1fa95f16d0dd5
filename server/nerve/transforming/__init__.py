"""A model's transform: the daemon's side (`host`) and the process that runs the script (`worker`)."""
