"""Every Prometheus collector, on a registry that is passed in."""
