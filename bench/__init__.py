"""Measure the relay: `run` beside the Go derper as a whole, `micro.run` piece by piece."""
