"""The tasks that serve certificates and renew them while the relay runs.

    files, SIGHUP ► watch: check the files, in a thread ► new context ──(memory channel)──► Contexts
                      ▲ wake
    renewal: order by ACME, in a thread          ► new file
    expiry: replace a self-signed certificate    ► new files

    plan           the certificates to serve: names, files, how each is obtained
    load           at start, the pairs that are in the files already
    manager        starts the tasks of each certificate
    watch          serves a changed file without a restart
    renewal        orders by ACME when a certificate is due
    dnsrecords     the DNS records of an order, which are removed however it ends
    expiry         warns of a self-signed certificate that ends soon, and replaces an expired one
    requests       certificates on demand, for the addresses that clients connect to
    presenter      interfaces to the listeners: contexts and challenge answers
    status         the pair in force, and how often it was replaced
    report         the log
    clock          the time of day, as a parameter; waits that can be cut short

Renewal only writes files, so others may renew, too: another process of the relay, another relay
with the same -certdir, certbot, the operator. Established connections keep their certificate. A
pair that can't be served is logged and counted, and the one in force stays.
"""
