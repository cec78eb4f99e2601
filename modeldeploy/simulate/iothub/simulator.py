"""The simulator as its users hold it."""

from __future__ import annotations

import atexit
import base64
import contextlib
import importlib.util
import secrets
from types import TracebackType
from typing import Any, Self

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.simulate.clock import Clock, ScaledClock
from modeldeploy.simulate.iothub.access import Access
from modeldeploy.simulate.iothub.app import App
from modeldeploy.simulate.iothub.devices import Device
from modeldeploy.simulate.iothub.faults import Faults
from modeldeploy.simulate.iothub.hub import Hub, Timings
from modeldeploy.simulate.server import Server

_NEEDED = ("jsonschema", "werkzeug")


class Simulator:
    """An IoT hub on a loopback port of this machine, with devices that follow their deployments.

    ``speed``: how many times as fast the service's time passes. ``page``: how many twins a query gives at a time. ``manual``: devices act
    when ``act`` is called, and not as time passes.
    """

    def __init__(
        self,
        *,
        speed: float = 60.0,
        faults: Faults | None = None,
        timings: Timings | None = None,
        clock: Clock | None = None,
        page: int = 100,
        manual: bool = False,
    ) -> None:
        if speed <= 0:
            message = f"speed is {speed!r}"
            raise ConfigurationError(message, hint="give a number above 0; 1 is the service's own pace")
        self.speed = speed
        self.faults = faults or Faults()
        self.hub = Hub(clock or ScaledClock(speed), self.faults, timings or Timings(), manual=manual)
        # Made anew each time; nothing outside of this simulator could be reached with them.
        self._token = secrets.token_urlsafe(24)
        self._key = base64.b64encode(secrets.token_bytes(32)).decode()
        self._page = page
        self._app: App | None = None
        self._stack = contextlib.ExitStack()
        self._port = 0

    def start(self) -> Self:
        """Start to serve; a second call changes nothing."""
        if self._app is None:
            _check_installed()
            with contextlib.ExitStack() as stack:
                server = Server()
                stack.callback(server.close)
                self._port = server.port
                self._app = App(self.hub, self.access, self._page)
                server.start(self._app)
                # Whoever forgets to stop it leaves nothing either.
                atexit.register(self.stop)
                stack.callback(atexit.unregister, self.stop)
                self._stack = stack.pop_all()
        return self

    def stop(self) -> None:
        """End the server; a second call changes nothing."""
        self._app = None
        self._stack.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        if self._app is None:
            message = "the simulator is not running"
            raise ConfigurationError(message, hint="call start(), or use it in a with statement")
        return f"http://{self.host}"

    @property
    def host(self) -> str:
        """The name of the hub."""
        return f"127.0.0.1:{self._port}"

    @property
    def access(self) -> Access:
        """The policy that may do everything; its ``connection_string`` is what a user is given."""
        return Access(self.host, "service", self._key, frozenset({self._token}))

    @property
    def heard(self) -> list[tuple[str, tuple[str, ...]]]:
        """Every request that was let in so far: operation and names."""
        return [] if self._app is None else self._app.heard

    def credential(self) -> Any:
        """Give a credential as azure-identity makes them, whose tokens this hub takes."""
        return _Credential(self._token)

    # The devices

    def add_device(self, name: str, *, fleet: str = "", online: bool = True, edge: bool = True, **tags: Any) -> Device:
        """Register a device, with the tag ``fleet`` and others."""
        device = Device(name, {**({"fleet": fleet} if fleet else {}), **tags}, online=online, edge=edge)
        self.hub.add(device)
        return device

    def add_fleet(self, fleet: str, count: int) -> list[Device]:
        """Register devices ``fleet-0``, ``fleet-1`` and so on."""
        return [self.add_device(f"{fleet}-{number}", fleet=fleet) for number in range(count)]

    def act(self) -> None:
        """Let every device that can be reached act once, now."""
        with self.hub.lock:
            self.hub.act()

    def device(self, name: str) -> Device:
        """Give a device as it is now."""
        with self.hub.lock:
            self.hub.go_on()
            return self.hub.device(name)

    def set_online(self, name: str, *, online: bool) -> None:
        """Cut a device off, or let it back."""
        with self.hub.lock:
            self.hub.go_on()
            self.hub.device(name).online = online

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Token:
    def __init__(self, token: str) -> None:
        self.token = token
        self.expires_on = 2**31


class _Credential:
    """Gives the one token of a simulator."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_scopes: str, **_options: Any) -> _Token:
        """Give it."""
        return _Token(self._token)


def _check_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the rehearsal of IoT Edge needs {', '.join(missing)}"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[iotedge,rehearsal]'")
