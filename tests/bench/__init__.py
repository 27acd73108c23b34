"""What tfwatch costs and how fast it is, measured on this machine: `python -m tests.bench`, or `make bench`.

Each figure stands beside its limit, or beside what a plain tool needed for the same work in the same run.
"""
