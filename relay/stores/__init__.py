"""Where streams are kept: `memory` in this process only, `redis` in a Redis that all nodes share.

`reading` (cursors) and `refusals` (the errors for what a store refuses) serve both.
"""
