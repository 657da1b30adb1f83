"""Where clients come in: one file or folder a dialect, which decodes what its clients send to a
`ChatRequest` and encodes a stream's records for them, nothing else.

`delivery` carries what they encode to the socket; `http_server` and `http` are what all share.
"""
