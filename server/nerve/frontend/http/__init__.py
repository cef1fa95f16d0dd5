"""HTTP by aiohttp: one module a wire dialect, and what they share."""
