import pickle

import numpy as np
import pytest
import skops.io
import torch
import xgboost
import yaml
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.manifest import FileEntry
from modeldeploy.packaging.package import package
from modeldeploy.packaging.paths import package_path
from modeldeploy.packaging.store import Store

OPTIONS = {"name": "iris", "version": "1.0.0"}


@pytest.fixture
def mlflow_model(tmp_path):
    """Write a model directory as MLflow does; mlflow itself is not needed."""

    def write(flavours, **files):
        root = tmp_path / "mlmodel"
        root.mkdir()
        (root / "MLmodel").write_text(yaml.safe_dump({"artifact_path": "model", "flavors": flavours}))
        for name, data in files.items():
            (root / name.replace("__", ".")).write_bytes(data)
        return root

    return write


def digest_of(data):
    return f"sha256:{FileEntry.of(data).sha256}"


def test_a_bundle_directory_and_its_archive_keep_name_version_and_digest(bundle, tmp_path):
    for at, path in enumerate([bundle.path, bundle.archive(tmp_path / "iris.tar.gz")]):
        other = Store(tmp_path / f"other-{at}")
        kept = package_path(path, store=other)
        assert kept.digest == bundle.digest
        assert other.get("iris", "1.0.0").digest == bundle.digest
        assert list((other.root / "staging").iterdir()) == []


def test_a_bundle_under_another_name_is_refused(bundle, store):
    with pytest.raises(ConfigurationError, match="has the name 'iris', not 'churn'"):
        package_path(bundle.path, store=store, name="churn")


def test_a_bundle_with_other_content_is_a_conflict(bundle, classifier, iris, tmp_path):
    other = Store(tmp_path / "other")
    package(classifier, example=iris[0].head(3), store=other, **OPTIONS)
    with pytest.raises(ConflictError):
        package_path(bundle.path, store=other)


def test_a_pickled_bundle_becomes_trusted_when_its_digest_is_named(store, tmp_path):
    made = package(lambda rows: rows[:, 0], example=np.ones((2, 2)), store=store, **OPTIONS)
    other = Store(tmp_path / "other")
    assert package_path(made.path, store=other).digest not in other.trusted()
    assert package_path(made.path, store=other, trust=made.digest).digest in other.trusted()


def test_a_skops_file_is_taken_as_it_is(iris, classifier, store, tmp_path):
    path = tmp_path / "model.skops"
    skops.io.dump(classifier, path)
    made = package_path(path, store=store, example=iris[0].head(), method="predict_proba", **OPTIONS)
    assert not made.manifest.pickled
    assert load(made).golden.outputs["probability"].shape == (5, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.py", "import the function"),
        ("model.pt", "load the module with torch"),
        ("model.safetensors", "only tensors"),
        ("model.h5", "pass a bundle"),
        ("model", "pass a bundle"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_remedy(name, message, store, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=message):
        package_path(tmp_path / name, store=store, example=np.ones((1, 2)), **OPTIONS)


def test_what_is_missing_is_said(store, tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        package_path(tmp_path / "none.onnx", store=store)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="without name=, version= and example="):
        package_path(tmp_path / "model.onnx", store=store, name="iris")
    with pytest.raises(ConfigurationError, match="neither a bundle nor an MLflow model"):
        package_path(tmp_path, store=store, example=np.ones((1, 2)), **OPTIONS)


# ---------------------------------------------------------------- MLflow


def test_an_mlflow_model_of_onnx_is_read_without_mlflow(iris, classifier, store, mlflow_model):
    data = iris[0].to_numpy(np.float32)
    model = to_onnx(classifier, data[:1], options={"zipmap": False}).SerializeToString()
    root = mlflow_model(
        {"onnx": {"data": "model.onnx"}, "python_function": {"loader_module": "mlflow.onnx"}}, model__onnx=model
    )
    assert package_path(root, store=store, example=data[:5], **OPTIONS).manifest.flavour == "onnx"


def test_an_mlflow_model_of_xgboost_is_read_without_mlflow(iris, store, mlflow_model, tmp_path):
    xgboost.XGBClassifier(n_estimators=2).fit(*iris).save_model(tmp_path / "model.ubj")
    root = mlflow_model(
        {"xgboost": {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier"}},
        model__ubj=(tmp_path / "model.ubj").read_bytes(),
    )
    made = package_path(root, store=store, example=iris[0].head(), **OPTIONS)
    assert made.manifest.options["class"] == "XGBClassifier"


def test_an_mlflow_model_of_scikit_learn_is_a_pickle_and_needs_trust(store, mlflow_model):
    example = np.ones((2, 2))
    model = pickle.dumps(LinearRegression().fit(example, [1.0, 3.0]))
    root = mlflow_model(
        {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}}, model__pkl=model
    )
    with pytest.raises(IntegrityError, match=digest_of(model)):
        package_path(root, store=store, example=example, **OPTIONS)
    made = package_path(root, store=store, example=example, trust=digest_of(model), **OPTIONS)
    loaded = load(made, trust=store.trusted())
    assert loaded.predict(loaded.golden.inputs)["prediction"].tolist() == pytest.approx([2.0, 2.0])


def test_an_mlflow_model_of_torch_is_a_pickle_and_needs_trust(store, mlflow_model):
    root = mlflow_model({"pytorch": {"model_data": "data"}})
    (root / "data").mkdir()
    torch.save(torch.nn.Linear(2, 1), root / "data" / "model.pth")
    digest = digest_of((root / "data" / "model.pth").read_bytes())
    example = np.ones((2, 2), np.float32)
    with pytest.raises(IntegrityError, match=digest):
        package_path(root, store=store, example=example, **OPTIONS)
    made = package_path(root, store=store, example=example, trust=digest, **OPTIONS)
    assert made.manifest.signature.outputs[0].shape == (1,)


@pytest.mark.parametrize("name", ["../secret.pkl", "/etc/passwd", "..\\secret.pkl", "linked.pkl"])
def test_an_mlflow_model_cannot_name_a_file_outside_of_it(name, store, mlflow_model, tmp_path):
    (tmp_path / "secret.pkl").write_bytes(b"secret")
    root = mlflow_model({"sklearn": {"pickled_model": name}})
    (root / "linked.pkl").symlink_to(tmp_path / "secret.pkl")
    with pytest.raises(IntegrityError, match="lies outside of it"):
        package_path(root, store=store, example=np.ones((1, 2)), trust=digest_of(b"secret"), **OPTIONS)


def test_an_mlflow_model_of_another_kind_is_refused_with_the_reason(store, mlflow_model):
    root = mlflow_model({"python_function": {"loader_module": "mlflow.pyfunc.model"}})
    with pytest.raises(ConfigurationError, match=r"'mlflow\.pyfunc\.model'"):
        package_path(root, store=store, example=np.ones((1, 2)), **OPTIONS)


@pytest.mark.parametrize("text", ["[", "5", "flavors: 5", "!!python/object/apply:os.system ['touch x']"])
def test_a_damaged_mlmodel_file_is_refused(text, store, tmp_path):
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(IntegrityError):
        package_path(tmp_path, store=store, example=np.ones((1, 2)), **OPTIONS)
