"""Local statistics of how useful suggestions are. They stay in one file on this machine; nothing is ever sent.

The file never holds code, paths, or anything else that says what was worked on: random ids, numbers, the language, the
name of the model, and the reasons of our own for showing nothing.
"""
