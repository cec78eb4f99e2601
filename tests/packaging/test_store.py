import errno
import multiprocessing
import os
import stat

import pytest
from sklearn.linear_model import LogisticRegression

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError, NotFoundError, QuotaError
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store


@pytest.fixture
def versions(classifier, iris, store):
    for version in ("1.10.0", "1.9.0", "1.10.0-rc.2", "1.10.0-rc.10", "2.0.0"):
        package(classifier, name="iris", version=version, example=iris[0].head(), store=store)
    return store


def test_versions_are_ordered_as_semantic_versions(versions):
    assert versions.versions("iris") == ("1.9.0", "1.10.0-rc.2", "1.10.0-rc.10", "1.10.0", "2.0.0")


def test_an_alias_is_moved_and_found(versions):
    versions.set_alias("iris", "champion", "1.9.0")
    versions.set_alias("iris", "champion", "2.0.0")
    assert versions.get("iris", "champion").manifest.version == "2.0.0"
    assert versions.aliases("iris") == {"champion": "2.0.0"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_and_leaves_nothing(classifier, iris, store, monkeypatch, code):
    def full(_handle):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(QuotaError, match=r"no space for the model in .*store.* MB free.*MODELDEPLOY_HOME"):
            package(classifier, name="iris", version="1.0.0", example=iris[0].head(), store=store)
    assert [path.name for path in store.root.rglob("*")] == ["staging"]
    assert package(classifier, name="iris", version="1.0.0", example=iris[0].head(), store=store)


def test_what_is_not_there_lists_what_is(versions):
    with pytest.raises(NotFoundError, match=r"no version or alias 'champion'.*'1.9.0'"):
        versions.get("iris", "champion")
    with pytest.raises(NotFoundError, match=r"no model 'churn'.*\['iris'\]"):
        versions.get("churn", "1.0.0")
    with pytest.raises(NotFoundError, match=r"'3.0.0'"):
        versions.set_alias("iris", "champion", "3.0.0")
    assert Store(versions.root / "empty").versions("iris") == ()


@pytest.mark.parametrize("name", ["../iris", "Iris", "", "a", None, "iris/../churn"])
def test_a_name_that_is_no_name_reaches_no_file(name, store):
    with pytest.raises(ConfigurationError, match="not a valid name"):
        store.get(name, "1.0.0")


@pytest.mark.parametrize("version", ["../../etc", "latest", "aliases", ""])
def test_a_version_that_is_none_is_not_found(version, versions):
    with pytest.raises(NotFoundError):
        versions.get("iris", version)


@pytest.mark.parametrize("alias", ["1.0.0", "Champion", "../x"])
def test_an_alias_that_could_be_taken_for_a_version_is_refused(alias, versions):
    with pytest.raises(ConfigurationError, match="alias"):
        versions.set_alias("iris", alias, "2.0.0")


def test_the_same_model_again_is_the_same_bundle(bundle, classifier, iris, store):
    again = package(classifier, name="iris", version="1.0.0", example=iris[0].head(), store=store)
    assert again == bundle
    assert len(list((store.root / "bundles").iterdir())) == 1
    assert list((store.root / "staging").iterdir()) == []


def test_other_content_under_the_same_version_is_a_conflict_that_names_both(bundle, iris, store):
    other = LogisticRegression(C=0.01, max_iter=500).fit(*iris)
    with pytest.raises(ConflictError) as caught:
        package(other, name="iris", version="1.0.0", example=iris[0].head(), store=store)
    text = str(caught.value)
    assert bundle.digest in text
    assert text.count("sha256:") == 2
    assert "'1.0.1'" in text
    assert store.get("iris", "1.0.0") == bundle


def test_directories_are_private(bundle, store):
    for path in [store.root, *store.root.rglob("*")]:
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_a_bundle_that_was_changed_on_disk_is_noticed(bundle, store):
    path = bundle.path / "manifest.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"sklearn", b"xgboost"))
    with pytest.raises(IntegrityError, match="expected"):
        store.get("iris", "1.0.0")


def test_a_bundle_whose_files_are_gone_is_said_to_be(bundle, store):
    bundle.path.rename(store.root / "elsewhere")
    with pytest.raises(IntegrityError, match="are gone"):
        store.get("iris", "1.0.0")


def test_packaging_again_repairs_a_damaged_bundle(bundle, classifier, iris, store):
    (bundle.path / "golden.json").unlink()
    with pytest.raises(IntegrityError):
        store.get("iris", "1.0.0").verify()
    package(classifier, name="iris", version="1.0.0", example=iris[0].head(), store=store)
    store.get("iris", "1.0.0").verify()


def test_only_digests_can_be_trusted(store):
    for wrong in ("", "sha256:", "sha256:zz", "../x", f"sha256:{'A' * 64}"):
        with pytest.raises(ConfigurationError, match="not a digest"):
            store.trust(wrong)
    assert store.trusted() == frozenset()
    store.trust(f"sha256:{'0' * 64}")
    assert store.trusted() == {f"sha256:{'0' * 64}"}


def _add(root, ready, go, results):
    from sklearn.datasets import load_iris

    table, target = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=500).fit(table, target)
    ready.release()
    go.wait(60)
    results.put(package(model, name="iris", version="1.0.0", example=table.head(), store=Store(root)).digest)


def test_two_processes_that_add_the_same_model_get_the_same_bundle(store):
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "fork")
    ready, go, results = context.Semaphore(0), context.Event(), context.Queue()
    processes = [context.Process(target=_add, args=(store.root, ready, go, results)) for _ in range(2)]
    for process in processes:
        process.start()
    try:
        assert all(ready.acquire(timeout=60) for _ in processes)
        go.set()
        digests = {results.get(timeout=60) for _ in processes}
    finally:
        for process in processes:
            process.join(30)
            process.kill()
    assert len(digests) == 1
    assert store.get("iris", "1.0.0").digest in digests
    assert list((store.root / "staging").iterdir()) == []
