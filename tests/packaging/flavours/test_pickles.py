"""A pickle runs whatever it says when it is opened: here each would leave a file behind."""

import os
import pickle

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import FunctionTransformer

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.flavours import pickles
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.manifest import FileEntry, Manifest
from modeldeploy.packaging.package import package
from modeldeploy.packaging.paths import package_path


class Exploit:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "executed"


EXAMPLE = np.ones((2, 2))


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib"])
def test_a_pickle_file_is_never_opened_without_trust(suffix, mark, store, tmp_path):
    path = tmp_path / f"model{suffix}"
    (
        joblib.dump(Exploit(mark), path, compress=3)
        if suffix == ".joblib"
        else path.write_bytes(pickle.dumps(Exploit(mark)))
    )
    with pytest.raises(IntegrityError, match="runs code when it is loaded") as caught:
        package_path(path, store=store, name="evil", version="1.0.0", example=EXAMPLE)
    assert not mark.exists()
    assert f"trust='sha256:{FileEntry.of(path.read_bytes()).sha256}'" in str(caught.value)


@pytest.mark.parametrize("suffix", [".skops", ".onnx", ".ubj", ".json", ".txt"])
def test_a_pickle_by_another_name_is_not_opened(suffix, mark, store, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Exploit(mark)))
    with pytest.raises(IntegrityError):
        package_path(path, store=store, name="evil", version="1.0.0", example=EXAMPLE)
    assert not mark.exists()


def forged(bundle, tmp_path, payload, **changes):
    """Make a bundle of the attacker's: consistent in itself, with the attacker's file in it."""
    name = changes.pop("name")
    target = tmp_path / "forged"
    (target / "artifacts").mkdir(parents=True)
    golden = bundle.read("golden.json")
    files = {"golden.json": golden, name: payload}
    document = {key: getattr(bundle.manifest, key) for key in bundle.manifest.__slots__ if not key.startswith("__")}
    entries = {path: FileEntry.of(data) for path, data in files.items()}
    manifest = Manifest(**{**document, "files": entries, **changes})
    for path, data in {**files, "manifest.json": manifest.to_bytes()}.items():
        (target / path).write_bytes(data)
    return Bundle.open(target)


@pytest.mark.parametrize("flavour", ["sklearn", "function", "torch"])
@pytest.mark.parametrize("pickled", [True, False], ids=["honest", "lying"])
@pytest.mark.parametrize("form", ["pickle", "joblib", "whole", "skops", "other"])
def test_a_forged_bundle_runs_nothing_whatever_its_manifest_says(  # noqa: PLR0917 - a table of three, and fixtures
    flavour, pickled, form, bundle, mark, tmp_path
):
    name = {"whole": "artifacts/model.pth", "skops": "artifacts/model.skops"}.get(form, "artifacts/model.pkl")
    evil = forged(
        bundle,
        tmp_path,
        pickle.dumps(Exploit(mark)),
        name=name,
        flavour=flavour,
        pickled=pickled,
        options={"format": form},
    )
    with pytest.raises(IntegrityError):
        load(evil)
    with pytest.raises(IntegrityError):
        load(evil, trust={bundle.digest})
    assert not mark.exists()


def test_a_forged_bundle_is_not_trusted_by_being_taken_into_the_store(bundle, mark, store, tmp_path):
    evil = forged(
        bundle,
        tmp_path,
        pickle.dumps(Exploit(mark)),
        name="artifacts/model.pkl",
        version="6.6.6",
        pickled=True,
        flavour="function",
    )
    kept = package_path(evil.path, store=store)
    assert kept.digest not in store.trusted()
    with pytest.raises(IntegrityError, match="nobody here vouched"):
        load(kept, trust=store.trusted())
    assert not mark.exists()


def test_a_skops_file_with_a_function_that_runs_commands_is_refused(bundle, mark, store, tmp_path):
    """skops opens no pickle, but an estimator may hold any function and call it when it predicts."""
    payload = skops.io.dumps(FunctionTransformer(os.system))
    evil = forged(
        bundle, tmp_path, payload, name="artifacts/model.skops", method="transform", options={"format": "skops"}
    )
    with pytest.raises(IntegrityError, match=r"posix\.system|os\.system"):
        load(evil)
    path = tmp_path / "model.skops"
    path.write_bytes(payload)
    with pytest.raises(IntegrityError, match="nobody here vouched"):
        package_path(path, store=store, name="evil", version="1.0.0", example=[str(mark)], method="transform")
    assert not mark.exists()


def test_functions_of_numpy_and_scikit_learn_are_not_safe_by_their_address(bundle, tmp_path):
    payload = skops.io.dumps(FunctionTransformer(np.load, kw_args={"allow_pickle": True}))
    evil = forged(
        bundle, tmp_path, payload, name="artifacts/model.skops", method="transform", options={"format": "skops"}
    )
    with pytest.raises(IntegrityError, match=r"numpy.*load"):
        load(evil)


def test_a_vouched_pickle_is_opened_in_another_process_only(store, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LinearRegression().fit(EXAMPLE, [1.0, 2.0])))
    opened = []
    digest = f"sha256:{FileEntry.of(path.read_bytes()).sha256}"

    def watch(event, arguments):
        if event == "pickle.find_class":
            opened.append(arguments)

    _watch(watch)
    made = package_path(path, store=store, name="line", version="1.0.0", example=EXAMPLE, trust=digest)
    assert opened == []
    assert made.digest in store.trusted()
    assert "scikit-learn" in " ".join(made.manifest.requirements)
    _HOOKS.clear()
    model = load(made, trust=store.trusted())
    assert model.predict(model.golden.inputs)["prediction"].tolist() == pytest.approx([1.5, 1.5])


_HOOKS = []


def _watch(hook):
    """Install an audit hook once; one that is installed cannot be removed."""
    import sys

    if not getattr(sys, "_packaging_hook", False):
        sys.addaudithook(lambda event, arguments: [each(event, arguments) for each in _HOOKS])
        sys._packaging_hook = True
    _HOOKS[:] = [hook]


def test_a_vouched_pickle_that_fails_says_why(mark, store, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"not": "a model"}))
    digest = f"sha256:{FileEntry.of(path.read_bytes()).sha256}"
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        package_path(path, store=store, name="evil", version="1.0.0", example=EXAMPLE, trust=digest)


def test_the_modules_of_a_pickle_are_read_without_opening_it(mark):
    assert pickles.modules_in(pickle.dumps(LinearRegression().fit(EXAMPLE, [1, 2]))) >= {"sklearn", "numpy"}
    pickles.modules_in(pickle.dumps(Exploit(mark)))
    assert not mark.exists()


def test_what_this_user_packaged_is_trusted_and_nothing_else(store):
    made = package(lambda rows: rows[:, 0], name="first", version="1.0.0", example=EXAMPLE, store=store)
    assert store.trusted() == {made.digest}


def test_the_cell_and_the_kernel_that_defined_a_function_do_not_change_its_bytes():
    """A notebook's cells are files named by the kernel's process id, another one after each restart."""
    made = []
    for kernel in (11, 22):
        scope = {"__name__": "__main__"}
        exec(compile("def model(rows): return rows", f"/tmp/ipykernel_{kernel}/{kernel * 3}.py", "exec"), scope)
        made.append(pickles.dumps(scope["model"]))
    assert made[0] == made[1]


def test_two_versions_of_a_class_in_one_process_stay_apart():
    """cloudpickle would give the second model the code of the first when their classes had one identity."""
    loaded = []
    for answer in (1, 2):
        scope = {"__name__": "__main__"}
        exec(f"class Model:\n    def predict(self, rows): return [{answer}] * len(rows)", scope)
        loaded.append(pickles.loads(pickles.dumps(scope["Model"]())))
    assert [model.predict([0]) for model in loaded] == [[1], [2]]
