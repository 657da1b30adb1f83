"""The operator's settings, and the providers and routes that follow from them."""
