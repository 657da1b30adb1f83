"""The words of the house, which every other room speaks: errors, events, requests, records, and
what a provider and a stream log are. Pure: no event loop, clock, log or socket.
"""
