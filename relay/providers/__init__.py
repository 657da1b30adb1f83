"""The vendors' wires. `registry.build` makes a provider; nothing here loads an SDK.

A vendor is a folder: `body` (what is asked), `decoder` (what is answered, and what a refusal
means) and `types` are pure; `provider` has the official SDK send. `vendor` makes the calls,
over `http` where it can; `decoding` is what the decoders share.
"""
