"""The contract between users and the platform, and between its parts.

Everything here is plain data and pure functions, so that every part may import it.
"""
