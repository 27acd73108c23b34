"""The use cases: submit, track, register. They decide what is caught; adapters decide what it means."""
