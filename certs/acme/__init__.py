"""Certificates by ACME (RFC 8555), with certbot's `acme` library.

    authority     the ACME server, and the account with it; checks its CA bundle
    order         orders a certificate and writes its file; asks when to renew
    issue         the ACME protocol with the authority: account, order, challenges, chain
    request       the names to order a certificate for, and the authority
    challenge     http-01 and tls-alpn-01 challenges, with their answers
    answer        makes a challenge's answer
    account       the account key
    store         the files in -certdir, and the lock
    network       HTTP to the authority: limits on time, size and clock
    explain       errors as one line for the operator
    ari           renewal information (ACME Renewal Information, RFC 9773)
    schedule      sans-I/O: when to renew, how long to wait after a failure

order, issue, network and explain import the library, which takes time and memory: import `order`
only where certificates come by ACME. All functions that do I/O block.
"""
