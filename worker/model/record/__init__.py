"""
The form that a record has in the stream: what a reader can derive is not written.

In: the statistics of a probe. Out: the map that is packed as an entry's `detail`, and back.
"""
