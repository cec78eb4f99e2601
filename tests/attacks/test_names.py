"""Names that a shell, a file system, a template or a log might act on (BentoML CVE-2026-33744 and CVE-2026-44345)."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from modeldeploy import BatchJob, Endpoint, Model
from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.errors import ConfigurationError, ModelDeployError
from modeldeploy.serving.access import Access
from modeldeploy.serving.keyring import Keyring
from modeldeploy.values.serving import EndpointSpec

NAMES = [
    "$(touch evil)", "`touch evil`", "; touch evil", "| touch evil", "& touch evil", "&& touch evil", "> evil", "a\ntouch evil", "a\rtouch evil", "a\x00b", "../evil", "..", ".",
    "/etc/passwd", "a/b", "a\\b", "C:evil", "-rf", "--help", "~", "*", "?", "a b", "a'b", 'a"b', "{{7*7}}", "${jndi:ldap://evil}", "%s%s%n", "<script>", "\u202eevil", "a\u200bb", "\u2170ris", "iris\u0301",
    "A" * 33, "x" * 10_000, "con", "nul", "", " ",
]  # fmt: skip
RESERVED_ON_WINDOWS = {"con", "nul"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RESERVED_ON_WINDOWS], ids=ascii)
def test_no_name_of_ours_may_be_one(name, modeldeploy_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = np.ones((2, 2))
    makers = [
        lambda: EndpointSpec(name),
        lambda: Endpoint.get(name),
        lambda: Model(sum_of, name=name, version="1.0.0", example=example),
        lambda: Model(sum_of, name="iris", version=name, example=example),
        lambda: Model.get(name, "1.0.0"),
        lambda: Model.versions(name),
        lambda: BatchJob.get(name),
    ]
    if not name.isalpha():  # which a distribution may well be called
        makers.append(lambda: Model(sum_of, name="iris", version="1.0.0", example=example, requirements=[name]))
    for make in makers:
        with pytest.raises(ModelDeployError):
            make()
    assert list(tmp_path.iterdir()) == []


def sum_of(rows):
    return rows.sum(axis=1)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "a\x00b", "\u202eevil", "", "x" * 81], ids=ascii)
def test_a_key_s_name_cannot_paint_over_a_terminal(name, tmp_path):
    with pytest.raises(ConfigurationError):
        Keyring(tmp_path / "keys.json").create(name)


def test_a_command_that_an_error_proposes_may_be_pasted(tmp_path):
    home = tmp_path / "x; touch evil #"
    with pytest.raises(ConfigurationError) as caught:
        LocalBackend(home)._check_exposed(Access(host="0.0.0.0"))
    command = str(caught.value).partition("make one with: ")[2].rpartition("; or, where")[0]
    assert shlex.split(command) == ["modeldeploy", "keys", "create", "NAME", "--home", str(home)]
