"""Certificates: where the relay's TLS identity comes from, and how TLS is told of it.

    metacert      the extra certificate that saves DERP clients a round trip
    pair          a certificate chain and its key, checked: what every source of them makes
    hostname      IP address or DNS name; its file name; whether a certificate covers it
    files         `<hostname>.crt` and `.key`, read
    selfsigned    the same two files, made and written
    manual        -certmode=manual: the files if there are any, else a self-signed pair for an IP
    context       pair + metacert → the ssl.SSLContext that connections are served with

Nothing here imports `derp`, waits, or reads a clock: the caller passes the time, and runs what
touches files in a thread.
"""
