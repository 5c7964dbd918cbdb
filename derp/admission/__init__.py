"""Who may use the relay: asked at each login, and from time to time while a client is connected.

    login ──► checker ──► cache        verdicts of the last seconds
                    └───► sources, each asked a Question and returning a Verdict
                             allowlist    the operator's file of keys
                             tailscaled   the LocalAPI of the machine's own tailscaled
                             url          an admission URL, such as headscale's /verify

    make           the checker, made from the configuration
    checker        asks the sources in order, caches, counts
    model          the question, its outcomes, the verdict; what a source is, and an Admission
    cache          verdicts, kept for a time
    allowlist      a file with one key per line         (listwatch: read again when it changes)
    tailscaled     which keys are in the tailnet of the relay's machine
    url            which clients a control server admits, asked over HTTP
    asker          one source, and the questions that wait for it
    limiter        how many questions go to a source at a time, and when it counts as down
    fairqueue      the order in which they wait

A source allows, refuses, or can't be asked. What follows from the third is decided in the checker,
so no source depends on what the others say.
"""
