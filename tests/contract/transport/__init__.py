"""What every carrier of a link promises (sync/net/transport.py), as tests over any of them.

A carrier is a `Carrier`: a name, and an async context manager that gives two connected ends. tests/contract/
test_transports.py runs all promises over each of them.
"""
