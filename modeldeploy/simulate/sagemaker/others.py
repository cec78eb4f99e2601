"""All other services: moto, in this process, for one account of each simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modeldeploy.simulate.sagemaker.site import Site

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_ACCOUNT = "HTTP_X_MOTO_ACCOUNT_ID"


def application() -> WSGIApplication:
    """Make the application that answers for all of them."""
    from moto.moto_server.werkzeug_app import create_backend_app
    from moto.server import DomainDispatcherApplication

    made: Any = DomainDispatcherApplication(create_backend_app)
    return made  # type: ignore[no-any-return]


def address(environ: WSGIEnvironment, account: str) -> None:
    """Say whose things a request is about, so that simulators in one process do not see each other's."""
    environ[_ACCOUNT] = account


def forget(site: Site) -> None:
    """Remove everything that moto holds for an account; it has no call for one alone."""
    from moto.core.base_backend import BackendDict
    from moto.s3.models import s3_backends

    for backends in list(BackendDict._instances):  # noqa: SLF001 - likewise
        backends.pop(site.account, None)
    owners = s3_backends.bucket_accounts
    for key in [key for key, owner in owners.items() if site.account in owner]:
        del owners[key]
