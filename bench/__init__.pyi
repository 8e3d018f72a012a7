# Tells mypy that bench/metering.py is another module than the package metering. Not a .py file:
# the Makefile makes a benchmark of each of those.
