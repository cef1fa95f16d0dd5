"""What every protocol shares: the data plane and the control plane."""
