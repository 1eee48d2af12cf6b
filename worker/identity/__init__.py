"""
Where the nodes of a row are, and whose an address is, before anything is measured there.

In: a row, the registry. Out: the pairs that may be measured, and findings for the others. Uses
`wire` and `probes`.
"""
