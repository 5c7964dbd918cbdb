"""What the server counts, and the page that shows it.

`counters` holds the numbers, `varz` renders them as the Go derper's /debug/varz does, so that a
dashboard made for it keeps working; `process` reads what the kernel knows about this process and
is not imported here, since counting must stay free of I/O.
"""

from derp.metrics.counters import DropReason, Histogram, Metrics
from derp.metrics.varz import CONTENT_TYPE, Certificate, Gauges, Process, render

__all__ = [
    "CONTENT_TYPE",
    "Certificate",
    "DropReason",
    "Gauges",
    "Histogram",
    "Metrics",
    "Process",
    "render",
]
