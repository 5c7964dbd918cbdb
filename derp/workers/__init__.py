"""More than one process for one relay: workers, which share its ports, and who looks after them.

What is here so far:

    control        what they say to each other: calls with answers
"""
