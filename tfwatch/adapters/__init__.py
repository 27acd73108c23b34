"""The doors to the services outside: each adapter is the only importer of its service's library.

Only `app` imports adapters, and only those whose integration is on.
"""
