"""The job: many shards through `pipeline`, in this process or on Ray actors.

Ray is imported by `actor`, `fleet` and `session` only, and these only by a run that uses it.
"""
