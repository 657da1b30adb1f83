"""What is done to the relay on purpose: faults, chaos and load, each a package with a command.

`faults` plays every fault once and judges the answer, `chaos` breaks running nodes at random,
`bench` measures. The other modules are shared by them and the tests: `upstreams` (the vendors,
played on loopback), `relay_process` and `redis_process` (a real server each), `waiting` and
`ports`. Nothing here imports from `tests`, and `relay` imports nothing from here.
"""
