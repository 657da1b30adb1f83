"""Where streams live: `memory` in this process alone, `redis` in a Redis that all nodes share.

`reading` (cursors) and `refusals` (what every store refuses, in the same words) serve both.
"""
