"""Rows of token ids in, logits out: sessions, instances and the batcher. Knows no text."""
