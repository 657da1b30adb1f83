"""How records reach clients: one engine for every transport and every dialect.

An `Outlet` sends what cursors yield on one connection. A dialect gives it an `Encoder` (records to
messages) and a transport a `Framing` (messages to bytes on the wire).
"""
