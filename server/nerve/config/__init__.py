"""Server settings and per-model `config.yaml`: read, checked, every problem reported at once."""
