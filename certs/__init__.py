"""Certificates, from the order to the ssl.SSLContext of the listener.

    metacert      the extra certificate that saves DERP clients a round trip
    pair          a certificate chain and its key, checked: what every source of them makes
    hostname      IP address or DNS name; its file name; whether a certificate covers it
    files         where a pair is kept: read, and written whole
    ownership     who could put another file in the place of one that is trusted
    selfsigned    a pair that nobody vouches for, made and written
    manual        -certmode=manual: the files if there are any, else a self-signed pair for an IP
    changes       whether files have changed, and may be served
    acme/         -certmode=letsencrypt and gcp: a pair is ordered, and put into its file
    context       pair + metacert → the ssl.SSLContext that connections are served with; those
                  that wait for a pair, and that answer a challenge

    tasks/        the Trio tasks that serve certificates and renew them

Nothing here imports `derp`. Outside tasks/ the caller passes the time, and runs what touches files
or the network in a thread.
"""
