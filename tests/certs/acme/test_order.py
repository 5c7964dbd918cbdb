import contextlib
import errno
import os
import re
from datetime import UTC, datetime, timedelta

import attrs
import pytest
import requests
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from certs.acme.authority import Authority
from certs.acme.challenge import HTTP01, TLSALPN01
from certs.acme.order import obtain, renewal_info
from certs.acme.request import OrderRequest
from certs.acme.store import certificate_file, locked, read_usable
from certs.errors import Failure, IssueError
from tests.support.examples import examples

HOST = "relay.example"


@pytest.fixture
def up():
    """The answers put up so far, and whether they still are."""
    return {}


@pytest.fixture
def order(fake, certdir, up, clock):
    """Order a certificate, and return what is in the file then."""

    @contextlib.contextmanager
    def present(challenges):
        up.update(dict.fromkeys(challenges, True))
        try:
            yield
        finally:
            up.update(dict.fromkeys(challenges, False))

    def order(*names, kind="http-01", now=None, timeout=60.0, replacing=None, **request):
        request = {"authority": fake.authority} | request
        now = now or datetime.now(UTC)
        wanted = OrderRequest(certdir, names or (HOST,), **request)
        ordered = obtain(wanted, kind, present, now, timeout=timeout, replacing=replacing)
        assert ordered is ("/finalize" in fake.asked)
        return read_usable(certdir, wanted.names, now)

    return order


@pytest.fixture
def complaint(order, fake, certdir):
    def complaint(*names, failure, **request):
        with pytest.raises(IssueError) as caught:
            order(*names, **request)
        message = str(caught.value)
        assert "\n" not in message
        assert message.isprintable()
        assert message.startswith(f"no certificate for {', '.join(names or (HOST,))}: ")
        assert caught.value.failure is failure, message
        assert not certificate_file(certdir, (*names, HOST)[0]).exists()
        complaint.retry_after = caught.value.retry_after  # type: ignore[attr-defined]
        return message.partition(": ")[2]

    return complaint


def host(fake):
    return fake.url.removeprefix("http://")


@pytest.mark.parametrize(("kind", "answer"), [("http-01", HTTP01), ("tls-alpn-01", TLSALPN01)])
def test_a_certificate_is_ordered(order, fake, certdir, up, kind, answer):
    pair = order(kind=kind)
    assert pair.names == (HOST,)
    assert fake.sent["/order"] == {"identifiers": [{"type": "dns", "value": HOST}]}
    assert fake.sent[f"/chall/0/{kind}"] == {}
    assert [type(challenge) for challenge in up] == [answer]
    assert not any(up.values())
    assert sorted(file.name for file in certdir.iterdir()) == [
        ".acme.lock",
        "acme_account+key",
        HOST,
    ]


def test_several_names_and_a_profile(order, fake, up):
    names = (HOST, "Other.Example.", "192.0.2.7", "2001:DB8::7")
    pair = order(*names, profile="shortlived")
    assert pair.names == (HOST, "other.example", "192.0.2.7", "2001:db8::7")
    assert fake.sent["/order"]["profile"] == "shortlived"
    kinds = [identifier["type"] for identifier in fake.sent["/order"]["identifiers"]]
    assert kinds == ["dns", "dns", "ip", "ip"]
    assert [challenge.token[:7] for challenge in up] == ["token-0", "token-1", "token-2", "token-3"]


def test_a_wildcard_is_validated_at_its_parent(order, fake, up):
    pair = order("*.relay.example", HOST, kind="dns-01")
    assert pair.names == ("*.relay.example", HOST)
    assert [challenge.domain for challenge in up] == [HOST, HOST]
    assert len({challenge.value for challenge in up}) == 2
    assert all(re.fullmatch("[A-Za-z0-9_-]{43}", challenge.value) for challenge in up)
    assert fake.sent["/chall/1/dns-01"] == {}


def test_a_wildcard_alone(order, fake, certdir):
    assert order("*.Relay.example", kind="dns-01").names == ("*.relay.example",)
    assert (certdir / "_.relay.example").is_file()


def test_a_wildcard_that_was_not_ordered(complaint, fake, up):
    fake.heard = lambda path: (
        path == "/order" and setattr(fake, "identifiers", [{"type": "dns", "value": f"*.{HOST}"}])
    )
    fake.say("/authz/0", 200, {"identifier": {"type": "dns", "value": HOST}, "wildcard": True})
    assert "not ACME" in complaint(failure=Failure.TRANSIENT, kind="dns-01")
    assert not up


def test_all_answers_are_presented_until_the_last_validation(order, fake, up):
    seen = {}
    fake.heard = lambda path: seen.setdefault(path, list(up.values()))
    order(HOST, "other.example")
    assert seen["/chall/0/http-01"] == seen["/chall/1/http-01"] == [True, True]
    assert seen["/authz/1"] == []
    assert seen["/finalize"] == [False, False]


def test_answers_are_taken_down_after_a_failure(complaint, fake, up):
    fake.refuse("/chall/0/http-01", "malformed")
    complaint(failure=Failure.REFUSED)
    assert list(up.values()) == [False]


def test_every_certificate_has_a_new_key(order):
    first = order()
    second = order(replacing=first.chain_der[0])
    assert first.key_pem != second.key_pem
    assert first.chain_der != second.chain_der


def test_a_certificate_renewed_by_another_process_is_kept(order, fake):
    ours = order()
    theirs = order(replacing=ours.chain_der[0])
    fake.asked.clear()
    assert order(replacing=ours.chain_der[0]) == theirs
    assert order(replacing=None) == theirs
    assert fake.asked == []


def test_an_unusable_certificate_is_replaced(order, certdir, now):
    file = certificate_file(certdir, HOST)
    certdir.mkdir()
    file.write_bytes(b"hello")
    first = order()
    file.write_bytes(file.read_bytes()[:300])
    assert order() != first


def test_a_name_that_is_valid_already_is_not_validated_again(order, fake, up):
    fake.heard = lambda path: setattr(fake, "validated", fake.validated or path == "/authz/0")
    order()
    assert not up
    assert not any(path.startswith("/chall") for path in fake.asked)


# The account.


def test_an_account_is_registered_once(order, fake):
    authority = attrs.evolve(fake.authority, email="ops@example.com")
    pair = order(authority=authority)
    assert fake.sent["/account"] == {
        "contact": ["mailto:ops@example.com"],
        "termsOfServiceAgreed": True,
    }
    order(authority=authority, replacing=pair.chain_der[0])
    assert fake.sent["/account"] == {"onlyReturnExisting": True, "contact": []}


def test_an_external_account_is_sent_only_to_register(order, fake):
    fake.meta["externalAccountRequired"] = True
    pair = order(authority=fake.with_external_account())
    binding = fake.sent["/account"]["externalAccountBinding"]
    assert set(binding) == {"protected", "payload", "signature"}
    order(authority=fake.with_external_account(), replacing=pair.chain_der[0])
    assert fake.sent["/account"] == {"onlyReturnExisting": True, "contact": []}


def test_the_account_lookup_may_be_refused_without_an_external_account(order, fake):
    fake.registered = True
    fake.say_once("/account", 403, fake.problem("externalAccountRequired"))
    assert order(authority=fake.with_external_account())


def test_an_account_that_turns_out_to_exist(order, fake):
    fake.say_once("/account", 400, fake.problem("accountDoesNotExist"))
    fake.registered = True
    assert order()
    assert fake.asked.count("/account") == 2


@pytest.mark.parametrize(("path", "status"), [("/account", 201), ("/order", 201)])
def test_a_resource_without_a_url(complaint, fake, path, status):
    if path == "/account":
        fake.say_once(path, 400, fake.problem("accountDoesNotExist"))
    fake.heard = lambda asked: asked == "/order" and fake.say(asked, 201, fake.order())
    fake.say(path, status, {"status": "valid"})
    assert "sends a response that is not ACME; " in complaint(failure=Failure.TRANSIENT)


def test_an_external_account_is_required(complaint, fake):
    fake.meta["externalAccountRequired"] = True
    message = complaint(failure=Failure.REFUSED)
    assert message == (
        f"{host(fake)} requires an external account; "
        f"give -acme-eab-kid and -acme-eab-key what it issued for that account"
    )


@pytest.mark.parametrize("code", ["externalAccountRequired", "unauthorized", "malformed"])
def test_an_external_account_that_is_wrong(complaint, fake, code):
    fake.say_once("/account", 400, fake.problem("accountDoesNotExist"))
    fake.refuse("/account", code, "unknown kid")
    message = complaint(authority=fake.with_external_account(), failure=Failure.REFUSED)
    assert message.startswith(f"{host(fake)} says 'unknown kid' ({code}); ")
    assert "give -acme-eab-kid and -acme-eab-key what the authority issued" in message


def test_a_closed_account(complaint, fake):
    fake.refuse("/account", "unauthorized", "deactivated", 403)
    assert "remove the account key" in complaint(failure=Failure.REFUSED)


def test_a_damaged_account_key(complaint, fake, certdir):
    certdir.mkdir()
    key_file = certdir / "acme_account+key"
    key_file.write_bytes(b"-----BEGIN EC PRIV")
    key_file.chmod(0o600)
    assert "acme_account+key: damaged account key" in complaint(failure=Failure.TRANSIENT)
    assert fake.asked == []


# What the authority refuses.


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("rateLimited", "the relay waits"),
        ("rejectedIdentifier", "use a name or address for which"),
        ("unsupportedIdentifier", "use a name that this authority"),
        ("caa", "change the CAA records"),
        ("invalidProfile", "an authority that has the profile 'short'"),
        ("userActionRequired", "do what it asks for"),
        ("unauthorized", "remove the account key"),
        ("badCSR", "see the authority's documentation"),
        ("", "see the authority's documentation"),
    ],
)
def test_an_order_that_is_refused(complaint, fake, code, cure):
    fake.refuse("/order", code, "we do not")
    message = complaint(profile="short", failure=Failure.REFUSED)
    assert message.startswith(f"{host(fake)} says 'we do not' ({code}); ")
    assert cure in message


@pytest.mark.parametrize("path", ["/account", "/order", "/authz/0", "/order/1"])
@pytest.mark.parametrize("status", [500, 503])
def test_errors_of_the_authority_are_transient(complaint, fake, path, status):
    fake.say(path, status, b"<h1>sorry</h1>", Retry_After="17")
    assert complaint(failure=Failure.TRANSIENT) == (
        f"{host(fake)} answers with HTTP status {status}; the relay tries again later"
    )
    assert complaint.retry_after == 17
    fake.refuse(path, "serverInternal", "sorry", status)
    assert complaint(failure=Failure.TRANSIENT) == (
        f"{host(fake)} says 'sorry' (serverInternal); the relay tries again later"
    )
    fake.refuse(path, "malformed", "sorry", status)
    complaint(failure=Failure.TRANSIENT)


def test_a_rate_limit_without_a_problem_document(complaint, fake):
    fake.say("/order", 429, b"slow down", Retry_After="3600")
    assert complaint(failure=Failure.REFUSED) == (
        f"{host(fake)} answers with HTTP status 429; the relay tries again later"
    )
    assert complaint.retry_after == 3600


@pytest.mark.parametrize("status", [429, 503])
def test_a_rate_limit_has_a_retry_after(complaint, fake, status):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    when = {"Date": "Tue, 01 Jan 2030 00:00:00 GMT", "Retry_After": "Tue, 01 Jan 2030 01:00:00 GMT"}
    fake.say("/dir", 200, fake.answer("/dir", None).body, Date=when["Date"])
    for path in ("/nonce", "/account"):
        fake.say(path, 200, {}, Date=when["Date"], Location=f"{fake.url}/account/1")
    fake.refuse("/order", "rateLimited", "slow down", status, **when)
    complaint(now=now, failure=Failure.REFUSED)
    assert complaint.retry_after == 3600


def test_the_text_of_a_problem_is_cut_and_made_printable(complaint, fake):
    fake.refuse("/order", "malformed", "one\r\ntwo\x1b[31m\u202e " + "long " * 10000)
    message = complaint(failure=Failure.REFUSED)
    assert "one two?[31m? long long" in message
    assert len(message) < 450


def test_problems_within_a_problem(complaint, fake):
    problem = fake.problem("compound", "several")
    problem["subproblems"] = [fake.problem("caa", "a bad one"), fake.problem("dns", "a worse one")]
    fake.say("/order", 403, problem)
    assert "says 'several a bad one a worse one' (compound)" in complaint(failure=Failure.REFUSED)


# Validation.


def judge(fake, number=0, status="invalid", **more):
    """Let a name be judged so, once the authority was told to look."""

    def heard(path):
        if path == f"/chall/{number}/http-01":
            challenges = [fake.challenge(number, "http-01", **more)]
            fake.say(
                f"/authz/{number}",
                200,
                fake.authorization(number, status=status, challenges=challenges),
            )

    fake.heard = heard


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("connection", "make TCP port 80 of relay.example lead to this relay"),
        ("unauthorized", "make TCP port 80 of relay.example lead to this relay"),
        ("dns", "give relay.example DNS records with the addresses of this relay"),
        ("caa", "change the CAA records"),
        ("rateLimited", "the relay waits"),
        ("sunspots", "make TCP port 80 of relay.example lead to this relay"),
    ],
)
def test_a_name_that_can_not_be_validated(complaint, fake, code, cure):
    judge(fake, error=fake.problem(code, "timed out"))
    message = complaint(failure=Failure.VALIDATION)
    assert message.startswith(
        f"{host(fake)} says 'timed out' ({code}) when it tried http-01 with relay.example; "
    )
    assert cure in message
    assert "/finalize" not in fake.asked


def test_one_name_of_two(complaint, fake):
    judge(fake, 1, error=fake.problem("connection", "timed out"))
    message = complaint(HOST, "192.0.2.7", failure=Failure.VALIDATION)
    assert "tried http-01 with 192.0.2.7; make TCP port 80 of 192.0.2.7" in message


@pytest.mark.parametrize("status", ["invalid", "deactivated", "revoked"])
def test_a_failed_validation_without_an_error(complaint, fake, status):
    judge(fake, status=status)
    message = complaint(failure=Failure.VALIDATION)
    assert message.startswith(f"{host(fake)} could not validate relay.example by http-01; make TCP")


def test_a_challenge_that_is_not_offered(complaint, fake, up):
    fake.kinds = ("dns-01", "http-01", "dns-persist-01")
    message = complaint(kind="tls-alpn-01", failure=Failure.VALIDATION)
    assert message == (
        f"{host(fake)} offers no tls-alpn-01 for relay.example, "
        f"only dns-01, dns-persist-01, http-01"
    )
    assert not up


@pytest.mark.parametrize("kind", ["http-01", "tls-alpn-01"])
@pytest.mark.parametrize(
    "token", ["", "short", "../../../../etc/passwd", "x" * 20 + "\n", "x" * 513, 5, None]
)
def test_a_malformed_token(complaint, fake, up, kind, token):
    fake.heard = lambda path: (
        path == "/authz/0"
        and fake.say(
            path, 200, fake.authorization(challenges=[fake.challenge(0, kind, token=token)])
        )
    )
    message = complaint(kind=kind, failure=Failure.TRANSIENT)
    assert message.startswith(f"{host(fake)} sends a response that is not ACME; ")
    assert not up


@pytest.mark.parametrize(
    "identifier",
    [
        {"type": "dns", "value": "other.example"},
        {"type": "dns", "value": "ü"},
        {"type": "dns", "value": ""},
        {"type": "ip", "value": 5},
        {"type": "dns"},
        None,
    ],
)
def test_an_authorization_for_a_name_that_was_not_ordered(complaint, fake, up, identifier):
    fake.heard = lambda path: (
        path == "/authz/0" and fake.say(path, 200, fake.authorization(identifier=identifier))
    )
    assert "sends a response that is not ACME" in complaint(failure=Failure.TRANSIENT)
    assert not up


def test_kinds_with_odd_names(complaint, fake):
    fake.kinds = ("dns-01\n\x1b[2J", "y" * 1000)
    assert "only dns-01 ?[2J, yyy" in complaint(failure=Failure.VALIDATION)
    fake.kinds = ()
    assert "only nothing" in complaint(failure=Failure.VALIDATION)


def test_a_validation_without_end(complaint, fake, clock):
    judge(fake, status="processing")
    message = complaint(timeout=30.0, failure=Failure.TRANSIENT)
    assert message == (f"{host(fake)} was not done within 30 s; the relay tries again later")
    assert clock.slept == [1.0] * 29


# From the request for the certificate on, each new order may cost another certificate.

SPENT = "an order was spent, and perhaps a certificate issued: "


def once_asked(fake, tell):
    """Call `tell` when the certificate is asked for, before that is answered."""
    fake.heard = lambda path: path == "/finalize" and tell()


def once_polled(fake, tell):
    """Call `tell` when the order is looked at after that; until then it is being processed."""

    def heard(path):
        if path == "/finalize":
            fake.issued = "processing"
        elif path == "/order/1" and fake.issued == "processing":
            fake.issued = "valid"
            tell()

    fake.heard = heard


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_errors_of_the_finalize_request_are_retried(order, fake, clock, status):
    fake.say_once("/finalize", status, b"<h1>sorry</h1>")
    fake.say_once("/finalize", 500, fake.problem("malformed"))
    fake.say_once("/finalize", status, fake.problem("malformed"))
    assert order()
    assert clock.slept == [1, 2, 4]
    assert fake.asked.count("/order") == 1


@pytest.mark.parametrize(
    ("path", "when", "slept"), [("/cert", once_asked, []), ("/order/1", once_polled, [1])]
)
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_errors_after_the_finalize_request_are_retried(
    order, fake, clock, path, when, slept, status
):
    """Whatever it is: with the order spent, there is nothing to lose."""

    def refuse():
        fake.say_once(path, status, b"<h1>sorry</h1>")
        fake.say_once(path, 500, fake.problem("serverInternal"))
        fake.say_once(path, status, fake.problem("malformed"))

    when(fake, refuse)
    assert order()
    assert clock.slept == [*slept, 1, 2, 4]
    assert fake.asked.count("/order") == 1


@pytest.mark.parametrize(
    ("path", "when", "slept"),
    [("/finalize", once_asked, []), ("/cert", once_asked, []), ("/order/1", once_polled, [1])],
)
@pytest.mark.parametrize("status", [500, 503])
def test_errors_until_the_time_is_up(complaint, fake, clock, path, when, slept, status):
    when(fake, lambda: fake.say(path, status, b"<h1>sorry</h1>"))
    assert complaint(timeout=100.0, failure=Failure.SPENT) == (
        f"{SPENT}{host(fake)} answers with HTTP status {status}; the relay tries again later"
    )
    assert clock.slept == [*slept, 1, 2, 4, 8, 16, 16, 16, 16, 16]
    assert fake.asked.count("/order") == 1


def test_errors_with_a_retry_after(order, fake, clock):
    fake.say_once("/cert", 503, b"sorry", Retry_After="17")
    fake.say_once("/cert", 503, b"sorry", Retry_After="0")
    assert order()
    assert clock.slept == [17, 2]


def test_errors_with_a_retry_after_beyond_the_time(complaint, fake, clock):
    fake.refuse("/cert", "rateLimited", "slow down", 429, Retry_After="60")
    assert complaint(timeout=60.0, failure=Failure.SPENT).startswith(
        f"{SPENT}{host(fake)} says 'slow down' (rateLimited); "
    )
    assert complaint.retry_after == 60
    assert clock.slept == []


@pytest.mark.parametrize("lost", [False, True])
def test_an_authority_that_falls_silent(complaint, fake, monkeypatch, lost):
    send = HTTPAdapter.send

    def broken(adapter, request, **more):
        if "/finalize" in fake.asked:
            raise requests.ConnectionError("Connection reset by peer")
        response = send(adapter, request, **more)
        if lost and request.url.endswith("/finalize"):
            response.close()
            raise requests.ReadTimeout("no answer")
        return response

    monkeypatch.setattr(HTTPAdapter, "send", broken)
    assert complaint(failure=Failure.SPENT).startswith(f"{SPENT}{host(fake)} can't be reached (")
    assert fake.asked.count("/order") == 1


def test_a_response_that_is_lost(order, fake, monkeypatch):
    """The certificate is issued all the same, and found there."""
    send = HTTPAdapter.send

    def broken(adapter, request, **more):
        response = send(adapter, request, **more)
        if request.url.endswith("/finalize"):
            response.close()
            raise requests.ReadTimeout("no answer")
        return response

    monkeypatch.setattr(HTTPAdapter, "send", broken)
    assert order()
    assert fake.asked.count("/finalize") == 1


def test_a_finalize_request_that_took_effect_in_spite_of_an_error(order, fake):
    """As when the answer to the first request for the certificate was lost."""
    fake.say_once("/finalize", 502, b"sorry")
    fake.say_once("/finalize", 403, fake.problem("orderNotReady"))
    assert order()


@pytest.mark.parametrize("code", ["badCSR", "caa", "orderNotReady", "rateLimited", "unauthorized"])
def test_a_certificate_that_is_refused(complaint, fake, code):
    fake.refuse("/finalize", code, "we do not", 403)
    message = complaint(failure=Failure.REFUSED)
    assert message.startswith(f"{host(fake)} says 'we do not' ({code}); ")
    assert fake.asked.count("/finalize") == 1


def test_time_is_up_after_the_finalize_request(complaint, fake, clock):
    once_asked(fake, lambda: clock.sleep(60.0))
    assert complaint(timeout=60.0, failure=Failure.SPENT) == (
        f"{SPENT}{host(fake)} was not done within 60 s; the relay tries again later"
    )


def test_a_clock_that_goes_wrong_after_the_finalize_request(complaint, fake):
    fake.say("/cert", 200, Date="Tue, 01 Jan 2030 00:00:00 GMT")
    assert complaint(failure=Failure.SPENT).startswith(f"{SPENT}{host(fake)} says that it is 2030")


def test_an_order_without_end(complaint, fake, clock):
    fake.issued = "processing"
    assert complaint(timeout=30.0, failure=Failure.SPENT) == (
        f"{SPENT}{host(fake)} was not done within 30 s; the relay tries again later"
    )
    assert clock.slept == [1.0] * 29


def test_an_order_that_stays_ready_is_not_hammered(complaint, fake, clock):
    fake.issued = "ready"
    complaint(timeout=100.0, failure=Failure.SPENT)
    assert fake.asked.count("/finalize") == 10


def test_the_authority_says_how_long_to_wait(complaint, fake, clock):
    fake.issued = "processing"
    fake.heard = lambda path: (
        path == "/finalize"
        and fake.say("/order/1", 200, fake.order(status="processing"), Retry_After="7")
    )
    complaint(timeout=30.0, failure=Failure.SPENT)
    assert clock.slept == [1, 7, 7, 7, 7]
    assert complaint.retry_after == 7


def test_an_invalid_order_without_an_error(complaint, fake):
    fake.issued = "invalid"
    message = complaint(failure=Failure.REFUSED)
    assert message.startswith(f"{host(fake)} calls the order invalid and does not say why; ")


def test_an_invalid_order_with_an_error(complaint, fake):
    fake.heard = lambda path: (
        path == "/finalize"
        and fake.say(
            path, 200, fake.order(status="invalid", error=fake.problem("caa", "not for us"))
        )
    )
    message = complaint(failure=Failure.REFUSED)
    assert message.startswith(f"{host(fake)} says 'not for us' (caa); change the CAA records")


def test_an_order_that_is_invalid_by_a_fault_of_the_authority(complaint, fake):
    error = fake.problem("serverInternal", "no SCTs")
    once_asked(fake, lambda: fake.say("/finalize", 200, fake.order(status="invalid", error=error)))
    message = complaint(failure=Failure.SPENT)
    assert message.startswith(f"{SPENT}{host(fake)} says 'no SCTs' (serverInternal); ")


# What is issued.


def test_a_certificate_for_other_names(complaint, fake, monkeypatch):
    usual = fake.certificate
    others = x509.SubjectAlternativeName([x509.DNSName("other.example")])
    monkeypatch.setattr(type(fake), "certificate", lambda self, key, names: usual(key, others))
    message = complaint(failure=Failure.SPENT)
    assert message.startswith(f"{host(fake)} issued a certificate that is not for relay.example; ")


def test_a_certificate_that_has_expired(complaint, fake):
    fake.expires = timedelta(days=-2)
    message = complaint(failure=Failure.SPENT)
    assert message.startswith(f"{host(fake)} issued a certificate that expired on ")


@pytest.mark.parametrize("body", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff"])
def test_a_chain_that_is_no_certificate(complaint, fake, body):
    fake.say("/cert", 200, body)
    assert f"the chain from {host(fake)}: " in complaint(failure=Failure.SPENT)


def test_a_certificate_for_another_key(complaint, fake, issued):
    fake.say("/cert", 200, issued.chain_pem)
    assert "this is not the key of the first certificate" in complaint(failure=Failure.SPENT)


def test_text_around_the_chain_is_not_stored(order, fake, certdir):
    fake.heard = lambda path: (
        path == "/cert" and fake.say(path, 200, b"hello\n" + fake.chain + b"more\n")
    )
    order()
    text = certificate_file(certdir, HOST).read_text()
    assert "hello" not in text
    assert text.endswith("-----END CERTIFICATE-----\n")


# Before the authority is asked.


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ((os, "fsync"), errno.ENOSPC),
        ((os, "fsync"), errno.EROFS),
    ],
)
def test_no_request_is_sent_if_nothing_can_be_stored(
    order, complaint, fake, certdir, monkeypatch, call, number
):
    order()  # so that there is an account key
    certificate_file(certdir, HOST).unlink()
    fake.asked.clear()

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*call, fail)
    complaint(failure=Failure.TRANSIENT)
    assert fake.asked == []


def test_no_request_is_sent_if_the_file_can_not_be_replaced(order, fake, certdir):
    file = certificate_file(certdir, HOST)
    file.mkdir(parents=True)
    with pytest.raises(IssueError, match=f"no certificate for {HOST}: {file}: not a regular file"):
        order()
    assert fake.asked == []


def test_no_request_is_sent_while_another_order_is_under_way(order, fake, certdir):
    certdir.mkdir()
    with locked(certdir), pytest.raises(IssueError) as caught:
        order()
    assert caught.value.failure is Failure.BUSY
    assert str(caught.value) == f"another order is under way in {certdir}"
    assert fake.asked == []


def test_a_bundle_without_a_certificate(complaint, fake, tmp_path):
    bundle = tmp_path / "ca.pem"
    authority = Authority(fake.authority.directory, bundle)
    message = complaint(authority=authority, failure=Failure.TRANSIENT)
    assert message.startswith(f"-acme-ca-bundle {bundle}: can't be read (No such file")
    bundle.write_bytes(b"hello")
    message = complaint(authority=authority, failure=Failure.TRANSIENT)
    assert message.startswith(f"-acme-ca-bundle {bundle}: no certificate in PEM; ")
    assert fake.asked == []


# Nonsense.


PATHS = ["/dir", "/account", "/order", "/authz/0", "/chall/0/http-01", "/order/1", "/finalize"]
NONSENSE = [
    b"",
    b"<html>",
    b"[",
    b"[" * 100_000,
    b"\xff\xfe",
    b"null",
    b"5",
    b'"text"',
    b"[]",
    b"[[]]",
    b"{}",
    b'{"status": "new"}',
    b'{"status": 5, "authorizations": 5, "challenges": 5, "identifiers": 5, "finalize": 5}',
    b'{"status": "ready", "authorizations": [5], "challenges": [5], "identifiers": [5]}',
    b'{"meta": [], "newNonce": 5, "newAccount": [], "newOrder": {}}',
    b'{"newNonce": "no", "newAccount": "gopher://x", "newOrder": "http://"}',
]


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("status", [200, 400])
def test_malformed_responses(order, fake, certdir, path, status):
    for body in NONSENSE:
        fake.say(path, status, body, Location=f"{fake.url}/somewhere")
        certificate_file(certdir, HOST).unlink(missing_ok=True)
        complaint_or_pair(order)


def complaint_or_pair(order):
    """Return the pair ordered, or None for an error that an operator can read and time can heal.

    Any other exception would end the task that renews, and with it the relay.
    """
    try:
        pair = order(timeout=10.0)
    except IssueError as error:
        message = str(error)
        assert message.isprintable()
        assert message.startswith(f"no certificate for {HOST}: ")
        assert len(message) < 1000
        return None
    assert pair.names == (HOST,)
    return pair


@pytest.mark.parametrize("rejections", [1, 5, 9])
def test_rejected_nonces(order, fake, rejections):
    for path in ("/account", "/order", "/finalize", "/cert"):
        for _ in range(rejections):
            fake.say_once(path, 400, fake.problem("badNonce"))
    assert order()


def test_nonces_that_are_always_rejected(complaint, fake):
    fake.refuse("/order", "badNonce", "stale")
    assert complaint(failure=Failure.TRANSIENT) == (
        f"{host(fake)} says 'stale' (badNonce); the relay tries again later"
    )
    assert fake.asked.count("/order") == 10


@pytest.mark.parametrize("nonce", [None, "x" * 5])
def test_a_malformed_nonce(complaint, fake, nonce):
    fake.say("/nonce", 200, Replay_Nonce=nonce)
    message = complaint(failure=Failure.TRANSIENT)
    assert message.startswith(f"{host(fake)} sends a response that is not ACME; ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


FIELDS = [
    "authorizations",
    "certificate",
    "challenges",
    "error",
    "finalize",
    "identifier",
    "identifiers",
    "meta",
    "newNonce",
    "newOrder",
    "profile",
    "status",
    "token",
    "type",
    "url",
]


@pytest.mark.slow
@settings(max_examples=examples(100), suppress_health_check=list(HealthCheck), deadline=None)
@given(st.sampled_from(PATHS), st.sampled_from(FIELDS), JSON, st.sampled_from([200, 400]))
def test_any_field_may_be_anything(order, fake, certdir, path, field, value, status):
    """The usual answer, but for one field."""

    def heard(asked):
        if asked == path:
            fake.heard = None
            usual = fake.answer(path, fake.sent[path]).body
            fake.say_once(path, status, usual | {field: value}, Location=f"{fake.url}/x")

    fake.once.clear()
    fake.heard = heard
    certificate_file(certdir, HOST).unlink(missing_ok=True)
    complaint_or_pair(order)


# Renewal information.


@pytest.fixture
def ask(fake, order, certdir, now):
    pair = order()

    def ask(now=now):
        return renewal_info(OrderRequest(certdir, (HOST,), fake.authority), pair, now)

    fake.asked.clear()
    return ask


def window(fake, **headers):
    def heard(path):
        if path.startswith("/renewal/"):
            start, end = "2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"
            fake.say(path, 200, {"suggestedWindow": {"start": start, "end": end}}, **headers)

    fake.heard = heard


def test_renewal_information(ask, fake):
    window(fake, Retry_After="7200")
    info = ask()
    assert info.window == (datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 2, tzinfo=UTC))
    assert info.ask_again_in == 7200
    assert len(fake.asked) == 2


def test_no_renewal_information_is_requested_for_an_expired_certificate(ask, fake, now):
    assert ask(now + timedelta(days=91)) is None
    assert fake.asked == []


def test_an_authority_without_renewal_information(ask, fake):
    body = fake.answer("/dir", None).body
    del body["renewalInfo"]
    fake.say("/dir", 200, body)
    assert ask() is None


def test_an_authority_that_does_not_know_the_certificate(ask, fake):
    assert ask() is None
    fake.heard = lambda path: "renewal" in path and fake.refuse(path, "malformed", "what?", 404)
    assert ask() is None


@pytest.mark.parametrize("body", [*NONSENSE, b'{"suggestedWindow": {"start": 5}}'])
def test_malformed_renewal_information(ask, fake, body):
    fake.heard = lambda path: "renewal" in path and fake.say(path, 200, body)
    with pytest.raises(IssueError) as caught:
        ask()
    assert str(caught.value).startswith(
        f"no renewal information for {HOST}: {host(fake)} sends a response that is not ACME; "
    )
