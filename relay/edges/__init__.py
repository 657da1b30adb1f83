"""One file a dialect: each decodes what its clients send to a `ChatRequest` and encodes a
stream's records for them, nothing else."""
