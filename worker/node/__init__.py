"""
The process on a node: the supervisor, its two RQ workers, the jobs that they may run.

In: settings, jobs. Out: heartbeats, results. The topmost room of `worker`: uses all but `monitor`.
"""
