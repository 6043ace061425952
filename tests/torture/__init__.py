"""Money under torture: kills, fail-points, cut connections and faults, judged by a journal.

The journal is kept by a fake upstream, so it knows what tollkeeper was really served. `run.py` is
the command.
"""
