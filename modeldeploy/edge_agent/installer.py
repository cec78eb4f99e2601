"""Brings a device from what it runs to what is wanted of it, one step that can be cut off at a time."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from modeldeploy.edge.desired import Desired, ReleaseRef, hash_file, wanted
from modeldeploy.edge.stores import PART, Store
from modeldeploy.edge_agent import durable
from modeldeploy.edge_agent.child import Child
from modeldeploy.edge_agent.config import Config
from modeldeploy.edge_agent.keeper import Keeper
from modeldeploy.edge_agent.memory import Failure, Memory
from modeldeploy.edge_agent.slots import Pointer, Slot, Slots
from modeldeploy.errors import IntegrityError, NotFoundError, QuotaError, UnavailableError
from modeldeploy.serving.breaker import CRASHES

# The archive, and several times its size unpacked.
_ROOM = 5
_FETCHES = 3
_log = logging.getLogger(__name__)


class Installer:
    """The only one that moves the pointer."""

    def __init__(self, config: Config, slots: Slots, memory: Memory, keeper: Keeper) -> None:
        self._config = config
        self._slots = slots
        self._memory = memory
        self._keeper = keeper
        self._incoming = config.home / "incoming"
        self._spoilt: dict[str, int] = {}

    # From the start of the agent

    def recover(self) -> None:
        """Serve what the pointer names, or the other slot where that one does not hold; after any loss of power."""
        self._slots.tidy()
        self._count_attempt()
        pointer = self._slots.pointer
        active = self._slots.look(pointer.slot, files=True)
        if pointer.slot is not None and active is None:
            _log.error("slot %s does not hold what was written to it", pointer.slot)
        if active is not None and self._is_hopeless(active, pointer):
            self._remember(
                active, f"the device did not stay up with it in {pointer.attempts - 1} attempts", lasting=True
            )
            active = None
        other = self._slots.look(self._slots.spare, files=True) if pointer.slot is not None else None
        whole = [slot for slot in (active, other) if slot is not None]
        if whole and not any(self._start(slot) for slot in whole):
            _log.error("neither slot passes its self-test now; it is tried again and again")
            self._keeper.resume(whole[0])

    def _count_attempt(self) -> None:
        pointer = self._slots.pointer
        if pointer.trial:
            with _tolerated("an attempt cannot be counted"):
                self._slots.point(Pointer(pointer.slot, trial=True, attempts=pointer.attempts + 1))

    def _is_hopeless(self, slot: Slot, pointer: Pointer) -> bool:
        return (pointer.trial and pointer.attempts > CRASHES) or self._failed_for_good(slot.digest)

    def _start(self, slot: Slot) -> bool:
        try:
            child = self._keeper.prove(slot)
        except IntegrityError as error:
            self._remember(slot, error.message, lasting=False)
            return False
        pointer = self._slots.pointer
        with _tolerated("the other slot cannot be pointed at"):
            self._hand_over(slot, child, pointer if slot.name == pointer.slot else Pointer(slot.name))
        return self._keeper.slot is not None

    # What is wanted

    def follow(self, desired: Desired, store: Store, *, tick: Callable[[], None]) -> str | None:
        """Run what the desired state wants of this device; gives what failed, in one sentence, or an empty text; None when it must wait.

        While a release is on trial nothing takes the place of the one before it, which is what the device would go back to.

        UnavailableError when the store cannot be reached: what came already is kept, and the next attempt goes on from there.
        """
        revision = wanted(desired, self._config.device)
        active = self._slots.active
        if revision is None:
            return self._leave_blocked(desired, active)
        ref = desired.releases[revision]
        if active is not None and active.digest == ref.digest and self._keeper.slot is not None:
            return ""
        failure = self._memory.failure(ref.digest, desired.sequence)
        if failure is not None:
            return failure.reason
        if self._slots.pointer.trial and not self._holds(ref):
            return None
        return self._install(revision, ref, desired, store, tick)

    def _install(self, revision: str, ref: ReleaseRef, desired: Desired, store: Store, tick: Callable[[], None]) -> str:
        try:
            slot = self._prepared(revision, ref, store, tick)
            child = self._keeper.prove(slot)
        except IntegrityError as error:
            failure = Failure(ref.digest, revision, desired.sequence, error.message, lasting=False)
            self._memory.remember(failure)
            return failure.reason
        durable.reached("prove")
        self._hand_over(slot, child, Pointer(slot.name, trial=True, attempts=1))
        _log.info("serving %s", revision)
        return ""

    def _holds(self, ref: ReleaseRef) -> bool:
        """Whether the release lies whole in the spare slot."""
        found = self._slots.look(self._slots.spare, files=True)
        return found is not None and found.digest == ref.digest

    def _prepared(self, revision: str, ref: ReleaseRef, store: Store, tick: Callable[[], None]) -> Slot:
        """Have the release whole in the spare slot, from the disk where it is there already."""
        found = self._slots.look(self._slots.spare, files=True)
        if found is None or found.digest != ref.digest:
            found = self._slots.fill(self._fetched(ref, store, tick), ref.digest)
            self._clear_incoming()
        if found.release.revision != revision:
            message = f"the release for {revision!r} says that it is {found.release.revision!r}"
            raise IntegrityError(message, hint="publish the revision again")
        return found

    def _fetched(self, ref: ReleaseRef, store: Store, tick: Callable[[], None]) -> Path:
        archive = self._incoming / f"{ref.digest}.tar.gz"
        self._clear_incoming(but=archive)
        self._check_space(ref)
        if not archive.is_file() and not store.get_to(ref.path, archive, size=ref.size, tick=tick):
            message = f"the store has no {ref.path!r}"
            raise NotFoundError(message, hint="publish the revision again")
        durable.reached("fetch")
        if hash_file(archive) != ref.digest:
            archive.unlink()
            self._refuse_archive(ref)
        return archive

    def _refuse_archive(self, ref: ReleaseRef) -> NoReturn:
        """Fetch once more what may have been damaged on the way; what comes wrong again and again is wrong in the store."""
        self._spoilt[ref.digest] = self._spoilt.get(ref.digest, 0) + 1
        message = f"the archive {ref.path!r} is not what the desired state says"
        if self._spoilt[ref.digest] < _FETCHES:
            raise UnavailableError(message, hint="it is fetched again")
        raise IntegrityError(message, hint="it was changed in the store; publish the revision again")

    def _check_space(self, ref: ReleaseRef) -> None:
        free, need = shutil.disk_usage(self._config.home).free, _ROOM * ref.size
        if free < need:
            message = f"no space for a release of {ref.size / 1e6:,.1f} MB: {free / 1e6:,.0f} MB are free"
            raise QuotaError(message, hint=f"free {need / 1e6:,.0f} MB for the archive and what is unpacked from it")

    def _clear_incoming(self, *, but: Path | None = None) -> None:
        kept = {but, but.with_name(but.name + PART)} if but is not None else set()
        for path in self._incoming.glob("*") if self._incoming.is_dir() else ():
            if path not in kept:
                path.unlink()

    def _leave_blocked(self, desired: Desired, active: Slot | None) -> str:
        """Go to the other slot when what runs is blocked and nothing else is wanted."""
        if active is None or active.release.revision not in desired.blocked:
            return ""
        other = self._slots.look(self._slots.spare, files=True)
        if other is None or other.release.revision in desired.blocked or self._failed_for_good(other.digest):
            return f"{active.release.revision} is blocked, and this device has nothing else"
        self._switch(other)
        return ""

    # Going back

    def watch(self) -> str:
        """Take a release on trial back when it keeps dying, and let one settle that stays up; gives what failed, or nothing."""
        keeper, pointer = self._keeper, self._slots.pointer
        if not pointer.trial or keeper.slot is None:
            return ""
        if keeper.deaths >= CRASHES:
            return self._go_back(keeper.slot)
        if keeper.up and keeper.settled_for >= self._config.settle:
            self._slots.point(Pointer(pointer.slot))
            durable.reached("settle")
        return ""

    def _go_back(self, slot: Slot) -> str:
        keeper = self._keeper
        reason = f"{slot.release.revision} died {keeper.deaths} times after it was activated: {keeper.reason}"
        self._remember(slot, reason, lasting=True)
        durable.reached("condemn")
        _log.error("%s", reason)
        other = self._slots.look(self._slots.spare, files=True)
        if other is None:
            keeper.stop()
            self._slots.point(Pointer())
        elif self._failed_for_good(other.digest):
            # The other one is worse known: this one is started again for as long as nothing better is wanted.
            self._slots.point(Pointer(slot.name))
        else:
            self._switch(other)
        return reason

    def _switch(self, slot: Slot) -> None:
        """Serve the other slot; where its server cannot be proved now, it is tried until it can."""
        child = None
        with contextlib.suppress(IntegrityError):
            child = self._keeper.prove(slot)
        if child is not None:
            self._hand_over(slot, child, Pointer(slot.name))
        else:
            self._slots.point(Pointer(slot.name))
            self._keeper.resume(slot)

    def _hand_over(self, slot: Slot, child: Child, pointer: Pointer) -> None:
        """Write down what is served from now on, then let it be served; a pointer that cannot be written leaves no server behind."""
        try:
            if pointer != self._slots.pointer:
                self._slots.point(pointer)
        except BaseException:
            child.kill()
            child.close()
            raise
        self._keeper.serve(slot, child)

    def _remember(self, slot: Slot, reason: str, *, lasting: bool) -> None:
        desired = self._memory.desired
        sequence = desired.sequence if desired is not None else 0
        with _tolerated("a failure cannot be written down"):
            self._memory.remember(Failure(slot.digest, slot.release.revision, sequence, reason, lasting))

    def _failed_for_good(self, digest: str) -> bool:
        found = self._memory.failures.get(digest)
        return found is not None and found.lasting


@contextlib.contextmanager
def _tolerated(what: str) -> Iterator[None]:
    """Go on when the disk takes nothing any more: serving comes first."""
    try:
        yield
    except OSError as error:
        _log.error("%s: %s", what, error)
