"""The vendors' wires. `registry.build` makes a provider; nothing here loads an SDK.

Each wire is split: `*_request` (what is asked) and `*_wire` (what is answered, and what a
refusal means) are pure; `openai`, `anthropic` and `gemini` send requests by the official SDKs,
and `vendor` makes the calls.
"""
