"""Who may use the relay: asked at each login, and from time to time while a client is connected.

    login ──► checker ──► cache        a verdict of a moment ago
                    └───► sources, each asked a Question and giving an Answer
                             allowlist    the operator's file of keys
                             tailscaled   the LocalAPI of the machine's own tailscaled
                             url          an admission URL, such as headscale's /verify

    make           the checker, made from the configuration
    checker        asks the sources in order, remembers, counts
    judge          the checker as logins know it, in this process or in another one
    cache          verdicts, remembered for a time
    question       the question, the answer, and what a source is
    allowlist      a file with one key per line         (listwatch: read again when it changes)
    tailscaled     who is in the same tailnet as the relay's machine
    url            whom a control server admits, asked by HTTP
    asker          one source and the questions to it
    limiter        how many questions go to a source at a time, and when it counts as down
    fairqueue      in which order they wait

A source answers one of three things: allowed, refused, or that it could not be asked. What follows
from the third is for the checker to decide, so no source knows what the others say.
"""
