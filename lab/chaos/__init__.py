"""Breaks a running relay on purpose and counts what its clients lost: `python -m lab.chaos`.

Uses real `server.py` processes, a real `redis-server`, a vendor played on loopback, and clients
that check every rule of the stream. docs/guarantees.md says what must hold.
"""
