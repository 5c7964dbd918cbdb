"""Admission: who may use the relay, decided at each login and again while a client is connected.

    login ──► checker ──► cache        verdicts of the last seconds
                    └───► sources, each asked a Question and returning a Verdict
                             allowlist    the operator's file of keys
                             tailscaled   the LocalAPI of the machine's own tailscaled
                             url          an admission URL, such as headscale's /verify

    make           makes the checker from the configuration
    checker        asks the sources in order, caches, counts
    model          Question, Outcome, Verdict; the protocols Source and Admission
    cache          verdicts, kept for a time
    allowlist      a file with one key per line         (listwatch: read again when it changes)
    tailscaled     which keys are in the tailnet of the relay's machine
    url            which clients a control server admits, asked over HTTP
    asker          one source, and the questions that wait for it
    limiter        how many questions go to a source at a time, and when it counts as down
    fairqueue      the order in which questions wait

A source allows, refuses, or can't be asked. The checker decides what follows from the third.
"""
