"""What the relay counts, and the pages that show it.

figures     how a figure is declared: name, and what it is for several processes
counters    numbers that the relay's tasks count up
gauges      what others know at one moment
variables   both as the tree of names that the Go derper has
varz        that as its /debug/varz has it, so that a dashboard made for it keeps working
expvar      the same for its /debug/vars
process     what the kernel knows about this process; does I/O, and is not imported here
"""

from derp.metrics.counters import DropReason, Metrics
from derp.metrics.expvar import render as render_expvar
from derp.metrics.figures import Histogram
from derp.metrics.gauges import Certificate, Gauges, Process
from derp.metrics.varz import render

__all__ = [
    "Certificate",
    "DropReason",
    "Gauges",
    "Histogram",
    "Metrics",
    "Process",
    "render",
    "render_expvar",
]
