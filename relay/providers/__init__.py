"""The vendors' wires. `registry.build` makes a provider; nothing here loads an SDK.

A vendor is a folder: `body` (builds the request), `decoder` (reads the answer and classifies
refusals) and `types` are pure; `provider` sends through the official SDK. `vendor` makes the
calls, over `http` where it can; `decoding` holds what the decoders share.
"""
