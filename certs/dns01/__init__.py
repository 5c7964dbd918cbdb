"""DNS challenges (dns-01, RFC 8555, 8.4): TXT records that an authority looks up.

    options        what the operator has said: provider, program, credentials, resolvers, time
    record         a TXT record, and where it has to be
    credentials    variables, of the environment and of a file
    budget         the time for an order's records, and the signal to give up
    lookup         asks name servers: where a record belongs, and who shows it
    shown          waits until all name servers of a zone show the records
    check          what can be checked at start
    provider       the interface to what sets and removes records; chooses it
    rfc2136        a provider: dynamic updates with TSIG
    hook           a provider: a program, called as by certbot
    lexicon        a provider: dns-lexicon, called in a process of its own
    lexiconcall    what runs in that process
    process        runs a program, within a time
    recordfile     the records that are set, on disk, so that none is forgotten
    present        presents challenges: sets the records, waits, removes them

All functions block: they are called in the thread that orders.
"""
