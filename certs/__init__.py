"""Certificates, from the order to the ssl.SSLContext of the listener.

    metacert      the extra certificate that saves DERP clients a round trip
    pair          a certificate chain and its key
    parse         checks a chain and its key, from whatever source
    hostname      IP address or DNS name; file names; whether a certificate covers a name
    files         reads the files of a pair
    wholefile     files written whole or not at all, even in a crash
    ownership     which other users could replace a trusted file
    selfsigned    makes and writes a self-signed pair
    generated     whether a pair is a self-signed one made for an IP address
    manual        -certmode=manual: the files if there are any, else a self-signed pair for an IP
    apart         calls what needs large libraries, in a process of its own
    installing    the command that installs a library for this Python
    retryafter    when a server wants to be asked again, and dates of HTTP
    changes       whether files have changed, and may be served
    acme/         -certmode=letsencrypt and gcp: orders a pair and writes its file
    dns01/        -acme-dns and -acme-dns-exec: sets the DNS records by which names are validated
    context       ssl.SSLContexts: for pair and metacert; before there is a pair; for a challenge

    tasks/        the Trio tasks that serve certificates and renew them

Nothing here imports `derp`. Outside tasks/ calls block, and the caller passes the time.
"""
