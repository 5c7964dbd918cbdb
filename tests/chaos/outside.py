"""Faults outside: what the relay asks is away, and comes back."""

import contextlib
import signal

from tests.chaos.stage import Neighbour, Stage
from tests.interop.issuing import hang_up
from tests.interop.relay import RelayError
from tests.support.waiting import until

BACK_SECONDS = 30.0


class Away:
    """A program is killed, so that nobody listens; or stopped, so that nobody answers."""

    def begin(self, stage: Stage) -> str:
        neighbour = self.neighbour(stage)
        self.stopped = stage.chance.random() < 0.5
        if self.stopped:
            neighbour.signal(signal.SIGSTOP)
            return "it gives no answer"
        neighbour.stop()
        return "nobody listens"

    def end(self, stage: Stage) -> None:
        neighbour = self.neighbour(stage)
        if self.stopped:
            neighbour.signal(signal.SIGCONT)
        elif neighbour.process is None:
            neighbour.start()

    def neighbour(self, stage: Stage) -> Neighbour:
        raise NotImplementedError


class AdmissionAway(Away):
    """The server of -verify-client-url."""

    name, go = "admission-away", True

    def neighbour(self, stage: Stage) -> Neighbour:
        return stage.admission


class TailnetAway(Away):
    """The API of -verify-tailnet."""

    name, go = "tailnet-away", False

    def neighbour(self, stage: Stage) -> Neighbour:
        assert stage.api_process
        return stage.api_process

    def end(self, stage: Stage) -> None:
        super().end(stage)
        until("the API answers", lambda: self._tells(stage), BACK_SECONDS)

    def _tells(self, stage: Stage) -> bool:
        with contextlib.suppress(OSError):
            stage.tell_api()
            return True
        return False


class AuthorityAway:
    """The ACME server is away while a certificate is due, and comes back knowing nothing."""

    name, go = "acme-away", False

    def begin(self, stage: Stage) -> str:
        assert stage.authority
        stage.authority.stop()
        with contextlib.suppress(OSError, RelayError):
            stage.put_certificate(lasts=1)
            stage.served = b""
            hang_up(stage.relay)
            return "nobody listens, and the certificate ends in an hour"
        return "nobody listens"

    def end(self, stage: Stage) -> None:
        assert stage.authority
        if stage.authority.process is None:
            stage.authority.start()
        stage.trust()
        # Its new root is read at a start only.
        stage.peer.kill()
        stage.peer.start()
        with contextlib.suppress(RelayError):
            hang_up(stage.relay)
