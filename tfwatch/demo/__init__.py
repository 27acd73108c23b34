"""`tfwatch demo`: the main job end to end on this machine, with real servers on loopback and no account anywhere."""
