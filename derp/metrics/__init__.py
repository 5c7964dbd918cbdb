"""The figures of the relay, and the pages that show them.

figures     how a figure is declared: its names, its help, and the rule for several processes
counters    numbers that the relay's tasks count up
gauges      values that other parts of the relay hold, at one moment
keybytes    bytes by node key, of a bounded number of keys
history     the traffic of the last minute, hour and day
variables   counters and gauges as a tree with the Go derper's names
prometheus  the figures as the text of /metrics
varz        the tree as the text of /debug/varz, for dashboards made for the Go derper
expvar      the tree as the JSON of /debug/vars
process     the kernel's figures of this process; does I/O, and is not imported here
"""

from derp.metrics.counters import DropReason, Metrics
from derp.metrics.expvar import render as render_expvar
from derp.metrics.figures import Histogram
from derp.metrics.gauges import Certificate, Gauges, Process
from derp.metrics.prometheus import render as render_metrics
from derp.metrics.varz import render as render_varz

__all__ = [
    "Certificate",
    "DropReason",
    "Gauges",
    "Histogram",
    "Metrics",
    "Process",
    "render_expvar",
    "render_metrics",
    "render_varz",
]
