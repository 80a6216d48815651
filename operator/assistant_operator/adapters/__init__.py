"""The only modules that talk to anything outside of the process.

Every write first asks `guard`, which raises when this operator may no longer lead. Every call has a time-out. None
retries by itself: a failed run is retried as a whole, by the queue, with back-off.
"""
