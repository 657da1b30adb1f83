"""The streaming HTTP client: sends one request to a vendor and reads its response as it arrives."""
