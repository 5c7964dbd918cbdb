"""The preparation of a relay before it serves: sockets, keys, certificates, admission.

All that can fail at start is done here, so that nothing is served before it has succeeded.
"""

import contextlib
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import attrs
from nacl.public import PrivateKey

from certs.errors import CertificateError
from certs.metacert import make_metacert
from certs.tasks.load import load
from certs.tasks.manager import Certificates
from derp.accounts.keeper import FLUSH_EVERY, Accounts
from derp.accounts.memorysink import MemorySink
from derp.admission.checker import Checker
from derp.admission.make import make_checker
from derp.admission.model import Admission
from derp.config import Config
from derp.config.certplan import make_plan
from derp.errors import StartError
from derp.files import nodekey, ratelimit
from derp.files.admintoken import AdminToken, load_token
from derp.files.debugkey import DebugKey
from derp.files.ratelimit import NO_LIMIT, RateConfig
from derp.mesh import setup as mesh_setup
from derp.metrics import Metrics
from derp.net.descriptors import raise_limit
from derp.net.listenaddress import ListenAddress
from derp.service.sockets import Sockets, open_all, open_control
from derp.service.tls import ServerContexts, make_certificates


@attrs.frozen
class StartupResources:
    """The results of `prepare`."""

    private_key: PrivateKey = attrs.field(repr=False)
    rate_limit: RateConfig
    metrics: Metrics
    admission: Admission | None
    mesh: mesh_setup.MeshAuth
    certificates: Certificates[ServerContexts] | None
    sockets: Sockets
    debug_key: DebugKey
    admin_token: AdminToken
    accounts: Accounts | None = None
    monitoring: Sequence[socket.socket] = ()
    """The listening sockets of -metrics-addr; empty without it, and in a worker."""
    control: socket.socket | None = None
    """The listening control socket; None without one, and in a worker."""
    all_sockets: Sequence[Sockets] = ()
    """The sockets of each process, `sockets` first; empty in a worker."""
    addresses: Mapping[socket.socket, ListenAddress] = attrs.field(factory=dict)
    """Where the configuration has each of `sockets`; empty in a worker."""

    @property
    def own_checker(self) -> Checker | None:
        """The checker; None without admission, and in a worker, whose supervisor has it."""
        return self.admission if isinstance(self.admission, Checker) else None


def prepare(config: Config, stack: contextlib.ExitStack, processes: int = 1) -> StartupResources:
    """Read the files and open the sockets of `processes` processes; `stack` closes them.

    Blocks. Raises StartError.
    """
    raise_limit()
    mesh = mesh_setup.read_auth(config)
    opened = open_all(config, stack, processes)
    rate_limit = NO_LIMIT
    if config.limits.rate_config is not None:
        rate_limit = ratelimit.load(config.limits.rate_config)
    debug_key = DebugKey(config.debug.key_file)
    debug_key.read()
    admin_token = load_token(config.debug.admin_token_file)
    metrics = Metrics()
    admission = make_checker(config, metrics)
    accounts = _accounts(config, processes)
    if admission is not None and admission.sources.policy is not None:
        admission.sources.policy.usage = accounts
        admission.sources.policy.usage_in_memory = config.accounts.file is None
    now = datetime.now(UTC)
    certificates = None
    try:
        plan = make_plan(config) if config.serve_tls else None
        found = [] if plan is None else load(plan, now)
        # Late, so that a failed start leaves no new key behind.
        if config.general.key_file is None:
            private_key = PrivateKey.generate()
        else:
            private_key = PrivateKey(nodekey.load_or_make(config.general.key_file).raw)
        # It may be in the directory that was made for the key.
        control = open_control(config, stack)
        if plan is not None:
            made = metacert(config, private_key, now)
            certificates = make_certificates(plan, found, made)
    except CertificateError as error:
        raise StartError(str(error)) from error
    return StartupResources(
        private_key=private_key,
        rate_limit=rate_limit,
        metrics=metrics,
        admission=admission,
        mesh=mesh,
        certificates=certificates,
        sockets=opened.processes[0],
        debug_key=debug_key,
        admin_token=admin_token,
        accounts=accounts,
        monitoring=opened.monitoring,
        control=control,
        all_sockets=opened.processes,
        addresses=opened.addresses,
    )


def metacert(config: Config, private_key: PrivateKey, now: datetime) -> bytes:
    """Return the metacert; empty for a relay that hides, whose clients do without."""
    return b"" if config.pages.is_hidden else make_metacert(bytes(private_key.public_key), now)


def _accounts(config: Config, processes: int) -> Accounts | None:
    """Return the accounts of the process that has the file; None where nothing is counted."""
    if not config.counts_bytes:
        return None
    # With workers, counts wait for two writes: a worker's own and the supervisor's.
    every = FLUSH_EVERY if processes == 1 else FLUSH_EVERY / 2
    if config.accounts.file is None:
        return Accounts(MemorySink(), every)
    # SQLite takes memory.
    from derp.accounts.filesink import FileSink  # noqa: PLC0415

    return Accounts(FileSink(config.accounts.file), every)
