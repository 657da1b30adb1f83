"""From arguments to the last byte: the parts put together, served by one process or several."""
