"""Fuzzing of every parser that sees bytes from outside: `python3 noxfile.py -s fuzz`.

targets   what is run on any bytes, and what must hold then
one       one target under atheris, which looks for new paths by coverage
session   all targets, each for a time; tells executions and coverage
table     these for a page of the documentation
corpus/   a folder of inputs for each target: the shapes that it knows, and each input that
          ever broke it (test_corpus.py runs them all in the unit suite)
"""
