"""The endpoints for clients: one file or folder a dialect. It decodes what its clients send to a
`ChatRequest` and encodes a stream's records for them, nothing else.

`delivery` writes the encoded messages to the socket; `http_server` and `http` are shared by all.
"""
