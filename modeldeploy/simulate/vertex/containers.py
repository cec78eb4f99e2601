"""The container contract: what a replica is started with, where it is asked how it is, and where it predicts."""

from __future__ import annotations

import shlex
import string
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from modeldeploy.simulate.processes import MODEL_SERVER, PORT, Program, free_port
from modeldeploy.simulate.vertex.images import SERVER, Images, expanded
from modeldeploy.simulate.vertex.world import World

if TYPE_CHECKING:
    from modeldeploy.simulate.vertex.replicas import Plan

COMMAND = "{command}"
"""What a container is told to start, in a program that stands for its image."""
_DEFAULT_PORT = 8080
_PYTHONS = ("python", "python3")
_OWN = ("--host", "--port")
"""Arguments of the model server that say where it listens, which here is for the simulator to say."""
_SHELL = frozenset({"&&", "||", "|", ";", "&"})


@attrs.frozen
class Start:
    """How a replica is started; ``made`` gives its program, its environment, and its port when that is settled before."""

    health: str
    predict: str
    made: Callable[[], tuple[Program, dict[str, str], int | None]]


@attrs.define(eq=False)
class Contract:
    """Makes starts of plans."""

    world: World
    images: Images
    storage_url: str
    artifacts_of: Callable[[str, str], str]

    def start(self, plan: Plan) -> Start:
        """Say how the replicas of a plan are started; an error when no program stands for the image."""
        program = self.images.program(plan.container)
        route = f"/v1/endpoints/{plan.endpoint}/deployedModels/{plan.deployed}"
        health = plan.container.health_route or route
        predict = plan.container.predict_route or f"{route}:predict"

        def made() -> tuple[Program, dict[str, str], int | None]:
            return self._made(plan, program, health, predict)

        return Start(health, predict, made)

    def _made(
        self, plan: Plan, program: Program, health: str, predict: str
    ) -> tuple[Program, dict[str, str], int | None]:
        if program is MODEL_SERVER:
            # It says itself where it listens; the port that it is told is what it would be in a container.
            ports = plan.container.ports
            environment = self._environment(plan, health, predict, ports[0].container_port if ports else _DEFAULT_PORT)
            return server(plan.container, environment), environment, None
        port = free_port()
        environment = self._environment(plan, health, predict, port)
        return Program(list(_filled(program.argv, plan.container, environment))), environment, port

    def _environment(self, plan: Plan, health: str, predict: str, port: int) -> dict[str, str]:
        machine = plan.resources.machine_spec
        environment = {
            "AIP_HTTP_PORT": str(port),
            "AIP_HEALTH_ROUTE": health,
            "AIP_PREDICT_ROUTE": predict,
            "AIP_STORAGE_URI": self.artifacts_of(plan.model_id, plan.version),
            "AIP_ENDPOINT_ID": plan.endpoint,
            "AIP_DEPLOYED_MODEL_ID": plan.deployed,
            "AIP_MODE": "PREDICTION",
            "AIP_MODE_VERSION": "1.0.0",
            "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
            "AIP_PROJECT_NUMBER": self.world.site.number,
            "AIP_MACHINE_TYPE": machine.machine_type,
            "AIP_ACCELERATOR_TYPE": machine.accelerator_type.name if machine.accelerator_count else "",
            # The process is told where Cloud Storage is, as Google's own clients are in tests.
            "STORAGE_EMULATOR_HOST": self.storage_url,
        }
        for each in plan.container.env:
            # Each may refer to those before it.
            environment[each.name] = expanded(each.value, environment)
        return environment


def _filled(argv: Sequence[str], container: Any, environment: Mapping[str, str]) -> Iterator[str]:
    """Put what a container is told in place of the placeholders; its Python is the one of this environment."""
    for each in argv:
        if each == COMMAND:
            words = [expanded(word, environment) for word in (*container.command, *container.args)]
            yield from (sys.executable if not at and word in _PYTHONS else word for at, word in enumerate(words))
        else:
            yield environment["AIP_HTTP_PORT"] if each == PORT else expanded(each, environment)


def server(container: Any, environment: Mapping[str, str]) -> Program:
    """Start the model server with the arguments that the container gives it, but on loopback."""
    words = [expanded(each, environment) for each in (*container.command, *container.args)]
    own = (sys.executable, "-m", SERVER, *_arguments(words, environment))
    return Program((*own, "--host", "127.0.0.1", "--port", "0", "--announce"))


def _arguments(words: list[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Find the arguments of the model server in a command, or in the script that a shell is told to run."""
    if SERVER not in words:
        script = next((each for each in words if SERVER in each), "")
        tokens = shlex.split(script.replace(";", " ; "))
        # Without any, they are what the image's own entry point gets.
        words = [string.Template(each).safe_substitute(environment) for each in tokens] or ["", SERVER, *words]
    behind, skip = words[words.index(SERVER) + 1 :], False
    for each in behind:
        if each in _SHELL:
            return
        own = each in _OWN
        if not (skip or own or each == "--announce" or each.startswith(tuple(f"{name}=" for name in _OWN))):
            yield each
        skip = own
