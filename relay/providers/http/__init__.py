"""The streaming HTTP client: one vendor's request and its response, read as it comes."""
