"""What the model registry knows: models, their versions, and which alias means which."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import attrs

from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.errors import ServiceError, invalid, not_found, precondition
from modeldeploy.simulate.vertex.names import ALIAS, Site, check_id

DEFAULT = "default"


@attrs.define(eq=False)
class Entry:
    """One model: its versions by their numbers, and its aliases."""

    name: str
    id: str
    created: Any
    versions: dict[str, Any] = attrs.field(factory=dict)
    aliases: dict[str, str] = attrs.field(factory=dict)
    last: int = 0
    """The latest number that was given; none is given twice."""

    def next(self) -> str:
        """Give the number of the next version."""
        self.last += 1
        return str(self.last)

    def add(self, number: str, model: Any) -> None:
        """Keep a version; the first one becomes the default."""
        self.versions[number] = model
        for alias in (*model.version_aliases, *(() if DEFAULT in self.aliases else (DEFAULT,))):
            self.aliases[alias] = number

    def version(self, asked: str) -> str:
        """Give the number that a number or an alias means."""
        number = asked if asked in self.versions else self.aliases.get(asked or DEFAULT)
        if number is None or number not in self.versions:
            kind = "Model version"
            raise not_found(kind, f"{self.name}@{asked}")
        return number

    def told(self, number: str) -> Any:
        """Give a version as callers see it."""
        model = proto.copy(self.versions[number])
        model.version_aliases = sorted(alias for alias, each in self.aliases.items() if each == number)
        return model

    def merge(self, number: str, asked: list[str]) -> None:
        """Give a version these aliases, and take those from it that a minus stands before."""
        added = {each for each in asked if not each.startswith("-")}
        removed = {each[1:] for each in asked if each.startswith("-")}
        for alias in added | removed:
            check_id(alias, ALIAS, "version alias")
        if DEFAULT in removed - added:
            message = "The default alias can only be moved, by giving it to another version."
            raise invalid(message)
        for alias in added - removed:
            self.aliases[alias] = number
        for alias in removed - added:
            if self.aliases.get(alias) == number:
                del self.aliases[alias]

    def remove(self, number: str) -> None:
        """Forget a version that is neither the only one nor the default."""
        if len(self.versions) == 1:
            message = "Deleting the only version in the Model is not allowed. Use DeleteModel instead."
            raise precondition(message)
        if self.aliases.get(DEFAULT) == number:
            message = "The default version cannot be deleted; make another version the default first."
            raise precondition(message)
        del self.versions[number]
        self.aliases = {alias: each for alias, each in self.aliases.items() if each != number}


@attrs.define(eq=False)
class Registry:
    """All models by their ids; whoever reads or changes them holds ``lock``."""

    site: Site
    lock: threading.RLock
    entries: dict[str, Entry] = attrs.field(factory=dict)
    reserved: set[str] = attrs.field(factory=set)
    """Ids of models that are being uploaded."""

    def find(self, name: str) -> tuple[Entry, str]:
        """Find the model of a name, and what stands behind the ``@`` of it."""
        own = self.site.id_of(name, "models")
        model_id, _, version = own.partition("@")
        entry = self.entries.get(model_id)
        if entry is None:
            kind = "Model"
            raise not_found(kind, name)
        return entry, version

    def version(self, name: str) -> tuple[Entry, str, Any]:
        """Find the version of a name: its model, its number, and what was uploaded."""
        with self.lock:
            entry, asked = self.find(name)
            number = entry.version(asked)
            return entry, number, entry.versions[number]

    def defaults(self) -> Iterator[Any]:
        """Give the default version of each model, the latest model first."""
        with self.lock:
            for entry in reversed(list(self.entries.values())):
                yield entry.told(entry.version(DEFAULT))

    def reserve(self, model_id: str) -> None:
        """Take an id for a model that is being uploaded."""
        if model_id in self.entries or model_id in self.reserved:
            message = f"Model {self.site.parent}/models/{model_id} already exists."
            raise ServiceError("ALREADY_EXISTS", message)
        self.reserved.add(model_id)
