"""The clients stand alone, so they say again what the relay says: here both are compared."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from relay.client import client, session, transport
from relay.configuration.settings import Settings
from relay.core.errors import Code
from relay.protocol.actions import CloseCode
from relay.protocol.frames import PROTOCOL

WEB = Path(__file__).parents[2] / "relay" / "web"
JS_CLIENT = (WEB / "relay-client.js").read_text()
JS_SESSION = (WEB / "relay-session.js").read_text()
PY_TRANSPORT = Path(transport.__file__).read_text()


def test_both_clients_offer_the_relays_subprotocol():
    assert re.findall(r"const SUBPROTOCOL = '(.*)'", JS_CLIENT) == [PROTOCOL]
    assert re.findall(r'Subprotocol\("(.*)"\)', PY_TRANSPORT) == [PROTOCOL]


def test_both_clients_know_the_same_close_codes_by_the_relays_own():
    told = re.findall(r"^  (\d{4}): \['(\w+)'", JS_SESSION, re.MULTILINE)
    in_js = {int(code): name for code, name in told}
    assert in_js == {code: name for code, (name, _) in session._CLOSE_ERRORS.items()}
    assert in_js
    assert set(in_js) <= set(CloseCode)
    assert set(in_js.values()) <= set(Code)
    assert set(transport._CODE_OF_STATUS.values()) <= set(CloseCode)


def test_the_python_client_starts_from_the_relays_defaults():
    fields = Settings.model_fields
    assert fields["heartbeat"].default == transport.DEFAULT_HEARTBEAT
    address = urlsplit(client.DEFAULT_URL)
    assert (address.hostname, address.port) == (fields["host"].default, fields["port"].default)
