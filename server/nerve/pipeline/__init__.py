"""Text to token rows, and scores back to labels and entities."""
