"""Where the change that the user just made belongs as well: other uses of a renamed name, lines of the same shape.

Finding the places is text work without a model. How often a place of some kind is right was counted over the histories
of repositories (``tests/bench/calibrate_next_edit.py``); only places that are mostly right are offered.
"""
