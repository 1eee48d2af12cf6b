"""
What a node reports of itself, and how it holds its name on its machine and in the mesh.

In: settings, this machine. Out: the node's record, events when it changes. Uses `publish`,
`identity` and `wire`.
"""
