"""The relay and its peers compared on one machine: `python -m lab.bench`.

`systems` lists what is compared, `measuring` makes one measurement, `native` has the load
generator and the upstream in C, `publish` puts a run's figures into docs/performance.md.
"""
