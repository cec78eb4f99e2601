import sys

import attrs
import pytest

from modeldeploy.errors import ConfigurationError, MissingDependencyError
from modeldeploy.packaging import requirements
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.package import package
from modeldeploy.packaging.requirements import merge, mismatches, of_modules


def test_the_direct_distributions_are_pinned(bundle):
    names = [requirement.partition("==")[0] for requirement in bundle.manifest.requirements]
    assert names == ["numpy", "pandas", "scikit-learn", "skops"]
    assert all("==" in requirement for requirement in bundle.manifest.requirements)


def test_here_nothing_is_mismatched(bundle):
    assert mismatches(bundle.manifest) == ()


def test_each_difference_of_the_environment_is_named(bundle):
    other = attrs.evolve(bundle.manifest, requirements=("numpy==0.0.1", "no-such-thing==1.0"), python="2.7.18")
    found = mismatches(other)
    assert len(found) == 3
    assert found[0].startswith("numpy==0.0.1 is required, ")
    assert found[1] == "no-such-thing==1.0 is required, no-such-thing is not installed"
    assert found[2].startswith("python 2.7.18 is required")


def test_an_environment_that_is_the_same_is_found_so_without_parsing_requirements(bundle, run_python):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from modeldeploy.packaging.bundle import Bundle\n"
        "from modeldeploy.packaging.requirements import mismatches\n"
        "assert mismatches(Bundle.open(Path(sys.argv[1])).manifest) == ()\n"
        "assert not {'packaging.requirements', 'importlib.metadata'}.intersection(sys.modules)\n"
    )
    run_python(code, bundle.path)


def test_a_version_is_read_off_the_directory_that_metadata_would_be_read_from(tmp_path, monkeypatch):
    left = (("first", "Some_Thing-1.0"), ("second", "some_thing-2.0"), ("second", "two-1.0"), ("second", "Two-1.1"))
    for place, name in left:
        (tmp_path / place / f"{name}.dist-info").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / place) for place in ("not-there", "first", "second")])
    assert requirements._on_the_path("some.thing") == "1.0"
    assert requirements._on_the_path("two") is None
    assert requirements._on_the_path("thing") is None


def test_a_requirement_that_is_written_otherwise_is_still_compared(bundle):
    version = next(text for text in bundle.manifest.requirements if text.startswith("numpy")).partition("==")[2]
    same = (
        f"numpy=={version}.0",
        f"numpy == {version}",
        "numpy>=1.0; python_version > '3'",
        "no-such-thing; python_version < '3'",
    )
    assert mismatches(attrs.evolve(bundle.manifest, requirements=same)) == ()


def test_a_requirement_of_the_user_wins(classifier, iris, store):
    made = package(
        classifier, name="iris", version="1.0.0", example=iris[0].head(), requires=["NumPy>=1.26", "rich"], store=store
    )
    assert {"NumPy>=1.26", "rich"} <= set(made.manifest.requirements)
    assert not any(requirement.startswith("numpy==") for requirement in made.manifest.requirements)


def test_a_requirement_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="'=1'"):
        merge((), ["=1"])


def test_a_module_that_no_distribution_brings_is_no_requirement():
    assert of_modules({"__no_such_module__"}) == ()


@pytest.mark.parametrize(
    ("module", "command"),
    [("no_such_thing", "pip install 'no_such_thing'"), ("xgboost", r"pip install 'modeldeploy\[xgboost\]'")],
)
def test_a_missing_package_is_named_with_the_command(module, command, monkeypatch):
    import sys

    if module == "xgboost":
        monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(MissingDependencyError, match=command):
        need(module)
