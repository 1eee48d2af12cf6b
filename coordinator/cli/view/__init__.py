"""
How runs, their matrices, their cost and a series of rounds are shown to a person.

In: what `results`, `runs` and `series` know. Out: what rich prints.
"""
