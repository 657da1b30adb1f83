"""The fault lab: every fault that an upstream can have, tested on the relay as it is run.

`python -m lab.faults` starts the relay in a process of its own, and loopback upstreams that speak
the vendors' wires and misbehave on purpose. Each cell of the matrix (fault, vendor, transport) is
one chat whose outcome is judged: text, attempts, time, frames.
"""
