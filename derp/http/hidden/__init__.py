"""A port on which there seems to be nothing: `-home hidden`.

To whoever does not ask as Tailscale's clients do, the port is an nginx that answers 404. What nginx
does is told in its own words: https://github.com/nginx/nginx, release-1.22.1, src/http, with
`server_tokens off` and `location / { return 404; }`, and its defaults otherwise.

    clients     the requests of Tailscale's clients (sans-I/O)
    grammar     request lines, targets, hosts and header fields as nginx reads them (sans-I/O)
    heads       a connection's requests, one by one, or their faults (sans-I/O)
    bodies      a body that is skipped (sans-I/O)
    answers     nginx's answers (sans-I/O)
    server      a connection until a client's request comes, or its end
"""
