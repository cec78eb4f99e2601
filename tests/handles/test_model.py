import pickle

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modeldeploy import config
from modeldeploy.errors import ConfigurationError, ConflictError, InvalidRequestError, NotFoundError
from modeldeploy.handles.model import Model


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def estimator(iris):
    return LogisticRegression(max_iter=500).fit(*iris)


@pytest.fixture
def model(estimator, iris, tmp_path):
    return Model(estimator, name="iris", version="1.0.0", example=iris[0].head(), home=tmp_path)


def test_a_model_tells_what_it_is(model, tmp_path):
    assert (model.name, model.version, model.flavour) == ("iris", "1.0.0", "sklearn")
    assert model.digest.startswith("sha256:")
    assert model.uri.startswith(str(tmp_path / "store"))
    assert len(model.signature.inputs) == 4
    assert any(requirement.startswith("scikit-learn==") for requirement in model.requirements)
    assert model.identity.digest == model.digest
    assert repr(model) == f"<Model iris 1.0.0 (sklearn, {model.digest[7:19]})>"


def test_the_store_lies_in_the_configured_home(estimator, iris, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELDEPLOY_HOME", str(tmp_path / "here"))
    made = Model(estimator, name="iris", version="1.0.0", example=iris[0].head())
    assert made.uri.startswith(str(config.load().home / "store"))
    assert Model.versions("iris") == ("1.0.0",)
    assert Model.get("iris", "1.0.0") == made


def test_a_cell_that_runs_again_gives_the_same_model(model, estimator, iris, tmp_path):
    again = Model(estimator, name="iris", version="1.0.0", example=iris[0].head(), home=tmp_path)
    assert again == model
    assert hash(again) == hash(model)


def test_another_estimator_under_the_same_version_is_a_conflict(model, iris, tmp_path):
    other = LogisticRegression(C=0.01, max_iter=500).fit(*iris)
    with pytest.raises(ConflictError, match=r"'1\.0\.1'"):
        Model(other, name="iris", version="1.0.0", example=iris[0].head(), home=tmp_path)


def test_an_alias_leads_to_its_version(model, estimator, iris, tmp_path):
    newer = Model(estimator, name="iris", version="1.1.0", example=iris[0].head(), home=tmp_path)
    assert model.alias("champion") is model
    newer.alias("champion")
    assert Model.get("iris", "champion", home=tmp_path).version == "1.1.0"
    assert (model.aliases, newer.aliases) == ((), ("champion",))
    with pytest.raises(NotFoundError):
        Model.get("iris", "challenger", home=tmp_path)


def test_a_model_predicts_here_with_the_estimator_it_was_made_from(model, estimator, iris):
    np.testing.assert_array_equal(model.predict(iris[0]), estimator.predict(iris[0]))
    with pytest.raises(InvalidRequestError, match="are missing"):
        model.predict(iris[0].iloc[:, :2])


def test_a_model_that_was_read_does_not_load_in_this_process(model, tmp_path):
    with pytest.raises(ConfigurationError, match=r"Endpoint\.deploy"):
        Model.get("iris", "1.0.0", home=tmp_path).predict([[1, 2, 3, 4]])


def test_an_archive_is_a_model_elsewhere(model, tmp_path):
    archive = model.archive(tmp_path / "iris.tar.gz")
    assert Model.from_path(archive, home=tmp_path / "elsewhere") == model


def test_a_pickle_is_taken_with_trust_only(iris, estimator, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(estimator))
    options = {"name": "iris", "version": "1.0.0", "example": iris[0].head(), "home": tmp_path}
    with pytest.raises(Exception, match="trust='sha256:") as caught:
        Model.from_path(path, **options)
    digest = str(caught.value).split("trust='")[1].rstrip("'")
    made = Model.from_path(path, trust=digest, **options)
    assert made.pickled
    assert made.trusted


def test_html_escapes_whatever_the_user_named(tmp_path):
    table = {"<script>alert(1)</script>": [1.0, 2.0], "a&b": [1.0, 2.0]}
    made = Model(lambda columns: columns["a&b"], name="evil", version="1.0.0", example=table, home=tmp_path)
    html = made._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;: float64" in html
    assert "a&amp;b: float64" in html
    assert made.digest in html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "My Model"}, "'my-model'"),
        ({"version": "1.0"}, "not a semantic version"),
        ({"version": 1}, "not a semantic version"),
        ({"example": None}, "example is None"),
        ({"example": "X.head()"}, "not a table"),
        ({"example": []}, "empty list"),
        ({"method": "predikt"}, "predikt"),
        ({"nullable": ["nope"]}, "nope"),
        ({"requirements": ["=="]}, "cannot be read"),
        ({"estimator": LogisticRegression}, "not|class"),
        ({"estimator": "model.pkl"}, "from_path"),
        ({"estimator": None}, "is not a model"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_remedy_and_leaves_nothing(change, message, estimator, iris, tmp_path):
    options = {"estimator": estimator, "name": "iris", "version": "1.0.0", "example": iris[0].head(), **change}
    with pytest.raises(ConfigurationError, match=message) as caught:
        Model(options.pop("estimator"), home=tmp_path, **options)
    assert caught.value.hint
    assert Model.versions("iris", home=tmp_path) == ()


def test_an_example_with_no_rows_is_refused(estimator, iris, tmp_path):
    with pytest.raises(ConfigurationError, match="no rows"):
        Model(estimator, name="iris", version="1.0.0", example=iris[0].head(0), home=tmp_path)


def test_an_example_of_other_columns_than_the_fit_is_refused(estimator, iris, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot predict its own example"):
        Model(estimator, name="iris", version="1.0.0", example=iris[0].head().iloc[:, :3], home=tmp_path)
