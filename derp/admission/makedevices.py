"""Construction of the lists of devices; it loads an HTTP client."""

import time

from derp import log
from derp.admission.devicelist import DeviceList
from derp.config import Config
from derp.devices import api
from derp.devices.fetch import Fetcher
from derp.devices.kept import KeptFormError, KeptList
from derp.devices.model import Devices
from derp.devices.secret import Secret
from derp.net import httpclient
from derp.net.oserrors import plain_reason
from derp.net.outgoing import make_client

logger = log.get("admit")


def make_device_lists(config: Config) -> list[DeviceList]:
    """Return the lists of devices, each with the one that is kept on disk.

    Blocks. Raises StartError if a secret can't be read.
    """
    lists = config.devices
    tags = frozenset(lists.tags)
    apis = []
    for name, given in zip(lists.tailnets, lists.tailnet_credentials, strict=True):
        secret = Secret(given.where, given.value, given.path)
        apis.append(api.tailscale(lists.api, name, secret, client_id=given.client_id, tags=tags))
    for url, given in zip(lists.headscales, lists.headscale_credentials, strict=True):
        apis.append(api.headscale(url, Secret(given.where, given.value, given.path), tags=tags))
    client = make_client("-verify-tailnet and -verify-headscale", config.verification.url_ca_bundle)
    found = []
    for each in apis:
        each.secret.read(at_start=True)
        if each.url.scheme == "http" and each.url.host not in httpclient.LOCAL_HOSTS:
            logger.warning(
                "whoever is on the way can read the credential; want https://",
                source=each.name,
                url=f"http://{each.url.authority}",
            )
        store, devices = None, None
        if config.general.key_file is not None:
            store = KeptList.of(config.general.key_file.parent, each.name, tags)
            devices = _load(store, each.name)
        found.append(
            DeviceList(each.name, Fetcher(each, client), lists.keep, devices=devices, store=store)
        )
    return found


def _load(store: KeptList, name: str) -> Devices | None:
    """Return the devices that are kept on disk; log why a file can't be used."""
    try:
        return store.load(time.time())
    except (OSError, KeptFormError) as error:
        reason = plain_reason(error)
        logger.warning(
            "the kept list of devices is not used", source=name, path=str(store.path), reason=reason
        )
    return None
