"""The types that all other packages share: errors, events, requests, records, and the interfaces of
a provider and a stream log. Pure: no event loop, clock, log or socket."""
