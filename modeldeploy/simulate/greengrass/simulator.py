"""The simulator as its users hold it."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import secrets
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.simulate.clock import Clock, ScaledClock
from modeldeploy.simulate.greengrass.account import Account
from modeldeploy.simulate.greengrass.app import App
from modeldeploy.simulate.greengrass.faults import Faults
from modeldeploy.simulate.greengrass.records import Core, Timings
from modeldeploy.simulate.sagemaker import others
from modeldeploy.simulate.sagemaker.cloud import Cloud, split_s3
from modeldeploy.simulate.sagemaker.signature import Credentials
from modeldeploy.simulate.sagemaker.site import Site
from modeldeploy.simulate.server import Server

_NEEDED = ("boto3", "moto", "werkzeug", "flask", "jsonschema")


class Simulator:
    """Greengrass v2 on a loopback port of this machine, with IoT's things and groups and storage beside it.

    ``speed``: how many times as fast the service's time passes. ``manual``: devices act when ``act`` is called, and not as time passes.
    """

    def __init__(
        self,
        *,
        speed: float = 60.0,
        faults: Faults | None = None,
        timings: Timings | None = None,
        region: str = "us-east-1",
        clock: Clock | None = None,
        manual: bool = False,
    ) -> None:
        if speed <= 0:
            message = f"speed is {speed!r}"
            raise ConfigurationError(message, hint="give a number above 0; 1 is the service's own pace")
        self.speed = speed
        self.faults = faults or Faults()
        self.site = Site(region, f"{secrets.randbelow(9 * 10**11) + 10**11}")
        # Made anew each time; nothing outside of this simulator could be reached with them.
        self.credentials = Credentials(f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))
        self._clock = clock or ScaledClock(speed)
        self.account = Account(
            self.site.account, region, self._clock, self.faults, timings or Timings(), self._members, self._read, manual
        )
        self._app: App | None = None
        self._cloud: Cloud | None = None
        self._stack = contextlib.ExitStack()
        self._port = 0

    def start(self) -> Self:
        """Start to serve; a second call changes nothing."""
        if self._app is None:
            _check_installed()
            with contextlib.ExitStack() as stack:
                stack.callback(others.forget, self.site)
                server = Server()
                stack.callback(server.close)
                self._port = server.port
                self._app = App(self.account, self.credentials, others.application())
                self._cloud = Cloud(self.url, self.site, self.credentials)
                stack.callback(self._cloud.close)
                server.start(self._app)
                self.client("s3").create_bucket(Bucket=self.bucket)
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
        """The endpoint URL of every service."""
        if self._app is None:
            message = "the simulator is not running"
            raise ConfigurationError(message, hint="call start(), or use it in a with statement")
        return f"http://127.0.0.1:{self._port}"

    @property
    def region(self) -> str:
        """The region that requests are to be signed for."""
        return self.site.region

    @property
    def bucket(self) -> str:
        """The name of a bucket, which exists."""
        return f"modeldeploy-edge-{self.site.account}"

    @property
    def heard(self) -> list[tuple[str, Any]]:
        """Every request to Greengrass that was let in so far: operation and parameters."""
        return [] if self._app is None else list(self._app.heard)

    def session(self) -> Any:
        """Make a boto3 session with this account's credentials and region; its clients still need ``endpoint_url``."""
        import boto3

        return boto3.Session(self.credentials.access_key, self.credentials.secret_key, region_name=self.region)

    def client(self, service: str) -> Any:
        """Give the boto3 client of a service in this account."""
        if self._cloud is None:
            return Cloud(self.url, self.site, self.credentials).client(service)
        return self._cloud.client(service)

    # The devices

    def add_device(self, name: str, *, group: str, online: bool = True) -> Core:
        """Register a core device as a thing of a group."""
        iot = self.client("iot")
        # With properties, for moto takes a second group without any for another one.
        iot.create_thing_group(thingGroupName=group, thingGroupProperties={"thingGroupDescription": "devices"})
        iot.create_thing(thingName=name)
        iot.add_thing_to_thing_group(thingGroupName=group, thingName=name)
        with self.account.lock:
            self.account.cores[name] = Core(name, online=online, changed=self._clock.now(), told=self._clock.now())
            return self.account.cores[name]

    def add_fleet(self, group: str, count: int) -> list[Core]:
        """Register core devices ``group-0``, ``group-1`` and so on."""
        return [self.add_device(f"{group}-{number}", group=group) for number in range(count)]

    def act(self) -> None:
        """Let every device that can be reached do all that is asked of it, now."""
        with self.account.lock:
            self.account.act()

    def device(self, name: str) -> Core:
        """Give a device as it is now."""
        with self.account.lock:
            self.account.go_on()
            return self.account.cores[name]

    def set_online(self, name: str, *, online: bool) -> None:
        """Cut a device off, or let it back."""
        with self.account.lock:
            self.account.go_on()
            self.account.cores[name].online = online

    def _members(self, target: str) -> Iterable[str]:
        """Name the things of a group, where moto keeps them."""
        from moto.iot.models import iot_backends

        groups = iot_backends[self.site.account][self.region].thing_groups
        group = groups.get(target)
        return [] if group is None else sorted(each.thing_name for each in list(group.things.values()))

    def _read(self, uri: str) -> bytes | None:
        bucket, key = split_s3(uri)
        return None if self._cloud is None else self._cloud.read(bucket, key)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the rehearsal of Greengrass needs {', '.join(missing)}"
        raise MissingDependencyError(message, hint="pip install 'modeldeploy[greengrass,rehearsal]'")
