"""Certificates in force: had, renewed and replaced while the server runs.

    files, SIGHUP ► watch: look, in a thread ► new context ──(memory channel)──► contexts
                      ▲ told to look
    renewal: order by ACME, in a thread     ► new file
    selfsigned: replace what has expired    ► new files

    served         one certificate: its names and files, and what the pages tell of it
    watch          a change of its files is served without a restart
    renewal        it is ordered by ACME when it is due, again and again
    selfsigned     it is replaced once it has expired, and its end is told beforehand
    contexts       the listeners' side: which certificate answers which ClientHello
    listeners      who is told of challenges and new certificates: this process, or others
    plan           which certificates the configuration asks for
    tasks          all of them: loaded at start, then each with tasks of its own
    clock          the time of day, as a parameter
    following      the same where another process renews: loaded, served, and looked at

Whoever renews only writes files, so that it makes no difference whether it was this process,
another relay with the same -certdir, certbot, or the operator. Established connections keep the
certificate that they began with. What can't be served is logged and counted, and the one in force
stays.
"""
