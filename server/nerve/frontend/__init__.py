"""Wire dialects. Nothing here knows models, tokens or batches."""
