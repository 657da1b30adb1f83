"""The relay and its peers side by side on one machine: `python -m lab.bench`.

`systems` is what is compared, `measuring` one measurement, `native` the load and the upstream in
C, `publish` puts a run's figures into docs/performance.md.
"""
