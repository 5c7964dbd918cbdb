"""What the server counts, and the pages that show it.

`counters` holds the numbers, `gauges` what others know. `variables` makes of both the tree that
the Go derper has, and `varz` and `expvar` render it as its /debug/varz and /debug/vars do, so that
a dashboard made for them keeps working. `process` reads what the kernel knows about this process
and is not imported here, since counting must stay free of I/O.
"""

from derp.metrics.counters import DropReason, Histogram, Metrics
from derp.metrics.expvar import render as render_expvar
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
