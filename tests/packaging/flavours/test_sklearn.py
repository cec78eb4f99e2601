import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from modeldeploy.errors import ConfigurationError, IntegrityError, InvalidRequestError
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package

ESTIMATORS = [
    LogisticRegression(max_iter=500),
    RandomForestClassifier(8, random_state=0),
    GradientBoostingClassifier(n_estimators=4),
    HistGradientBoostingClassifier(max_iter=4),
    KNeighborsClassifier(),
    GaussianNB(),
    SVC(),
    make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("frames", [True, False], ids=["frame", "array"])
def test_an_estimator_answers_after_loading_as_before(estimator, frames, iris, round_trip):
    table, target = iris
    data = table if frames else table.to_numpy()
    estimator.fit(data, target)
    made, answers = round_trip(estimator, data[:5], data)
    np.testing.assert_array_equal(answers["prediction"], estimator.predict(data))
    assert not made.manifest.pickled
    assert made.manifest.flavour == "sklearn"


def test_predict_proba_gives_one_column_for_each_class(iris, classifier, round_trip):
    table, _target = iris
    made, answers = round_trip(classifier, table.head(), table, method="predict_proba")
    np.testing.assert_allclose(answers["probability"], classifier.predict_proba(table))
    assert made.manifest.signature.outputs[0].shape == (3,)


@pytest.mark.parametrize("frames", [True, False], ids=["frame", "array"])
@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ("predict", [StandardScaler(), LogisticRegression(max_iter=500)]),
        ("predict_proba", [SimpleImputer(), "passthrough", StandardScaler(), LogisticRegression(max_iter=500)]),
        ("decision_function", [make_pipeline(StandardScaler()), LogisticRegression(max_iter=500)]),
        ("transform", [SimpleImputer(), StandardScaler()]),
        ("transform", [StandardScaler(), "passthrough"]),
        ("predict", [LogisticRegression(max_iter=500)]),
    ],
)
def test_a_pipeline_answers_as_its_own_method_does(method, steps, frames, iris, round_trip):
    table, target = iris
    data = table if frames else table.to_numpy()
    model = make_pipeline(*steps).fit(data, target)
    _made, answers = round_trip(model, data[:5], data, method=method)
    np.testing.assert_array_equal(next(iter(answers.values())), getattr(model, method)(data))


def test_a_loaded_pipeline_is_not_looked_at_for_each_call(iris, store, monkeypatch):
    table, target = iris
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(table, target)
    loaded = load(package(model, name="flowers", version="1.0.0", example=table.head(), store=store))
    expected = model.predict(table)

    def refuse(*_arguments, **_options):
        pytest.fail("the pipeline's own method was called")

    monkeypatch.setattr(type(model), "predict", refuse)
    columns = {name: table[name].to_numpy() for name in table}
    np.testing.assert_array_equal(loaded.predict(columns)["prediction"], expected)


def test_text_labels_come_back_as_text(iris, round_trip):
    table, target = iris
    names = np.array(["setosa", "versicolor", "virginica"])[target]
    model = LogisticRegression(max_iter=500).fit(table, names)
    _made, answers = round_trip(model, table.head(), table)
    assert answers["prediction"].dtype == object
    assert answers["prediction"].tolist() == model.predict(table).tolist()


def test_a_frame_of_mixed_columns_reaches_the_pipeline_as_it_was_fitted(mixed, round_trip):
    encode = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "income"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["city", "plan", "active"]),
        ]
    )
    model = make_pipeline(encode, LinearRegression()).fit(mixed, mixed["age"] * 2.0)
    made, answers = round_trip(model, mixed.head(30), mixed)
    np.testing.assert_allclose(answers["prediction"], model.predict(mixed))
    kinds = {field.name: (field.dtype.value, field.nullable) for field in made.manifest.signature.inputs}
    assert kinds == {
        "age": ("int64", False),
        "income": ("float64", True),
        "city": ("string", False),
        "plan": ("string", False),
        "active": ("bool", False),
    }


def test_an_unknown_category_is_refused_by_its_column(mixed, round_trip):
    model = make_pipeline(OneHotEncoder(), LinearRegression()).fit(mixed[["plan"]], mixed["age"])
    with pytest.raises(InvalidRequestError, match="'gold'") as caught:
        round_trip(model, mixed[["plan"]].head(), [{"plan": "gold"}])
    assert caught.value.field == "plan"


def test_an_estimator_fitted_on_an_array_gets_an_array_though_the_example_is_a_frame(iris, round_trip, recwarn):
    table, target = iris
    model = GaussianNB().fit(table.to_numpy(), target)
    _made, answers = round_trip(model, table.head(), table)
    np.testing.assert_array_equal(answers["prediction"], model.predict(table.to_numpy()))
    assert not recwarn.list


def test_an_estimator_fitted_on_a_frame_gets_a_frame_though_the_example_is_an_array(
    iris, classifier, round_trip, recwarn
):
    table, _target = iris
    made, answers = round_trip(classifier, table.to_numpy()[:5], table.to_numpy())
    np.testing.assert_array_equal(answers["prediction"], classifier.predict(table))
    assert [field.name for field in made.manifest.signature.inputs] == list(table.columns)
    assert not recwarn.list


def test_an_estimator_fitted_on_polars_gets_polars(iris, round_trip):
    table, target = iris
    frame = pl.from_pandas(table)
    model = LogisticRegression(max_iter=500).fit(frame, target)
    made, answers = round_trip(model, frame.head(), frame)
    assert made.manifest.container == "polars"
    np.testing.assert_array_equal(answers["prediction"], model.predict(frame))


def test_whole_number_column_labels_survive(round_trip):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 3)))
    model = GaussianNB().fit(frame, [0, 1] * 10)
    _made, answers = round_trip(model, frame.head(), frame)
    np.testing.assert_array_equal(answers["prediction"], model.predict(frame))


def test_texts_are_a_column_of_text(round_trip):
    texts = ["good film", "bad film", "good book", "bad book"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    made, answers = round_trip(model, texts, ["good", "bad"])
    assert answers["prediction"].tolist() == [1, 0]
    assert made.manifest.signature.inputs[0].dtype.value == "string"


def test_a_vectorizer_of_dicts_gets_dicts(round_trip):
    rows = [{"size": 1.0, "age": 3.0}, {"size": 5.0, "age": 1.0}, {"size": 2.0, "age": 2.0}]
    model = make_pipeline(DictVectorizer(), LinearRegression()).fit(rows, [1.0, 2.0, 3.0])
    made, answers = round_trip(model, rows, rows)
    assert made.manifest.container == "records"
    np.testing.assert_allclose(answers["prediction"], [1.0, 2.0, 3.0])


def test_several_targets_give_rows_of_several_values(iris, round_trip):
    table, target = iris
    model = RandomForestRegressor(3, random_state=0).fit(table, np.stack([target, target * 2.0], axis=1))
    made, answers = round_trip(model, table.head(), table)
    assert made.manifest.signature.outputs[0].shape == (2,)
    np.testing.assert_allclose(answers["prediction"], model.predict(table))


def test_probabilities_of_several_targets_get_a_name_each(iris, round_trip):
    table, target = iris
    model = MultiOutputClassifier(GaussianNB()).fit(table, np.stack([target, target > 0], axis=1))
    _made, answers = round_trip(model, table.head(), table, method="predict_proba")
    assert {name: array.shape for name, array in answers.items()} == {
        "probability_0": (150, 3),
        "probability_1": (150, 2),
    }


def test_other_methods_can_be_served(iris, round_trip):
    table, _target = iris
    model = IsolationForest(n_estimators=4, random_state=0).fit(table)
    _made, answers = round_trip(model, table.head(), table, method="decision_function")
    np.testing.assert_allclose(answers["decision"], model.decision_function(table))


def add_one(values):
    return values + 1


def test_a_pipeline_with_local_code_is_pickled_with_the_code_inside(iris, round_trip):
    table, target = iris
    model = make_pipeline(FunctionTransformer(add_one), LogisticRegression(max_iter=500)).fit(table, target)
    made, answers = round_trip(model, table.head(), table)
    assert made.manifest.pickled
    np.testing.assert_array_equal(answers["prediction"], model.predict(table))


class Majority(ClassifierMixin, BaseEstimator):
    """An estimator as users write them."""

    def fit(self, X, y):  # noqa: N803
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        self.answer_ = self.classes_[0]
        return self

    def predict(self, X):  # noqa: N803
        return np.full(len(X), self.answer_)


def test_an_estimator_of_the_notebook_is_pickled_and_needs_trust(iris, round_trip):
    table, target = iris
    made, answers = round_trip(Majority().fit(table.to_numpy(), target), table.to_numpy()[:3], table.to_numpy())
    assert made.manifest.pickled
    assert set(answers["prediction"]) == {0}
    with pytest.raises(IntegrityError, match="nobody here vouched") as caught:
        load(made)
    assert made.digest in str(caught.value)


def test_an_estimator_that_is_not_fitted_is_refused(iris, store):
    with pytest.raises(ConfigurationError, match="LogisticRegression is not fitted"):
        package(LogisticRegression(), name="iris", version="1.0.0", example=iris[0].head(), store=store)


def test_a_method_that_the_estimator_lacks_is_refused(iris, store):
    model = LinearRegression().fit(*iris)
    with pytest.raises(ConfigurationError, match=r"has no predict_proba\(\)"):
        package(model, name="iris", version="1.0.0", example=iris[0].head(), method="predict_proba", store=store)


def test_an_example_in_another_column_order_is_refused_with_the_reason(iris, classifier, store):
    table = iris[0][list(iris[0].columns[::-1])]
    with pytest.raises(ConfigurationError, match="same order"):
        package(classifier, name="iris", version="1.0.0", example=table.head(), store=store)


def test_importing_skops_does_not_import_torch(run_python):
    code = (
        "import sys, numpy as np\n"
        "from sklearn.linear_model import LinearRegression\n"
        "from modeldeploy.packaging.flavours import skops\n"
        "model = LinearRegression().fit(np.eye(3), [1, 2, 3])\n"
        "assert skops.dumps(model) is not None\n"
        "sys.stdout.write(str('torch' in sys.modules))\n"
    )
    assert run_python(code) == "False"
    assert sys.modules


LEAN = """
import sys
from pathlib import Path
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.flavours import skops
from modeldeploy.packaging.loading import load
import sklearn.utils

listing = sklearn.utils.all_estimators
skops.preload(lean=True)
assert sklearn.utils.all_estimators is listing
assert "sklearn.gaussian_process" not in sys.modules
for path in sys.argv[1:]:
    model = load(Bundle.open(Path(path)))
    differences = model.golden.differences(model.predict(model.golden.inputs))
    assert not differences, differences
"""


def test_a_process_that_only_loads_does_so_without_all_of_scikit_learn(iris, store, run_python):
    table, target = iris
    paths = []
    for estimator in ESTIMATORS:
        name = f"m-{type(estimator).__name__.lower()}"[:30]
        made = package(estimator.fit(table, target), name=name, version="1.0.0", example=table.head(), store=store)
        assert not made.manifest.pickled
        paths.append(made.path)
    run_python(LEAN, *paths)


def test_a_process_that_only_loads_does_so_without_pandas_until_a_model_wants_it(iris, store, run_python):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from modeldeploy.packaging.bundle import Bundle\n"
        "from modeldeploy.packaging.flavours import skops\n"
        "from modeldeploy.packaging.loading import load\n"
        "skops.preload(lean=True)\n"
        "assert not {'pandas', 'sklearn.ensemble._hist_gradient_boosting.binning'} & set(sys.modules)\n"
        "model = load(Bundle.open(Path(sys.argv[1])))\n"
        "assert not model.golden.differences(model.predict(model.golden.inputs))\n"
        "sys.stdout.write(str('pandas' in sys.modules))\n"
    )
    table, target = iris
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(table, target)
    made = package(fitted, name="boosted", version="1.0.0", example=table.head(), store=store)
    assert run_python(code, made.path) == "True"


def test_a_process_that_only_loads_knows_what_needs_trust(run_python):
    code = (
        "import json, sys, numpy as np\n"
        "from modeldeploy.packaging.flavours import skops\n"
        "skops.preload(lean=True)\n"
        "from sklearn.linear_model import LinearRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import FunctionTransformer\n"
        "model = make_pipeline(FunctionTransformer(json.dumps), LinearRegression())\n"
        "types = skops.untrusted(skops.dumps(model))\n"
        "assert 'sklearn.linear_model._base.LinearRegression' in types\n"
        "sys.stdout.write(str([name for name in types if not skops.is_safe(name)]))\n"
    )
    assert run_python(code) == "['json.dumps']"


def test_a_model_of_texts_wants_a_list_as_its_example(store):
    from sklearn.feature_extraction.text import CountVectorizer

    texts = pd.Series(["good thing", "bad thing", "good day"], name="text")
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1])
    with pytest.raises(ConfigurationError, match=r"example=column.tolist\(\)"):
        package(model, name="texts", version="1.0.0", example=texts, store=store)
    bundle = package(model, name="texts", version="1.0.0", example=texts.tolist(), store=store)
    assert bundle.manifest.signature.inputs[0].name == "input"


def test_a_process_that_only_loads_imports_neither_pandas_nor_statistics(run_python):
    code = (
        "import sys\n"
        "from modeldeploy.packaging.flavours import lean, skops\n"
        "with lean.imports():\n"
        "    import sklearn.calibration, sklearn.ensemble, sklearn.linear_model\n"
        "skops.preload(lean=True)\n"
        "names = ['pandas', 'scipy.stats', 'sklearn.cluster']\n"
        "assert not [name for name in names if name in sys.modules]\n"
        "import pandas, skops.io, sklearn.cluster\n"
        "from sklearn.isotonic import spearmanr\n"
        "from sklearn.utils.fixes import _mode\n"
        "assert pandas.DataFrame and skops.io.loads and sklearn.cluster.KMeans().fit\n"
        "assert spearmanr([1, 2, 3], [1, 2, 3]).statistic > 0.99 and _mode([[3], [3]], axis=0)[0] == [3]\n"
        "import scipy.signal, scipy.stats\n"
        "assert scipy.stats.spearmanr is not spearmanr\n"
        "assert 'Parameters' in scipy.stats.spearmanr.__doc__ and 'Array API' in scipy.signal.lfilter.__doc__\n"
    )
    run_python(code)


def test_a_process_that_only_loads_trusts_the_ufuncs_that_skops_does_and_no_other_function(run_python):
    code = (
        "import sys\n"
        "from modeldeploy.packaging.flavours import skops\n"
        "skops.preload(lean=bool(int(sys.argv[1])))\n"
        "from skops.io import _trusted_types as lists\n"
        "names = lists.NUMPY_UFUNC_TYPE_NAMES + lists.SCIPY_UFUNC_TYPE_NAMES\n"
        "assert (len(names) > 300) is not bool(int(sys.argv[1]))\n"
        "assert [name for name in names if not skops.is_safe(name)] == []\n"
        "others = ['numpy.load', 'numpy.frompyfunc', 'numpy.vectorize', 'numpy.ufunc', 'numpyish.add', 'scipy.special.roots_legendre', 'scipy.io.loadmat']\n"
        "sys.modules['numpyish'] = type(sys)('numpyish')\n"
        "sys.modules['numpyish'].add = lambda *_: None\n"
        "assert [name for name in others if skops.is_safe(name)] == []\n"
    )
    run_python(code, "0")
    run_python(code, "1")


def test_a_process_that_only_loads_loads_a_model_with_ufuncs(store, run_python):
    from scipy.special import expit

    model = make_pipeline(FunctionTransformer(np.tanh), FunctionTransformer(expit), LinearRegression())
    made = package(model.fit(np.eye(3), [1, 2, 3]), name="ufuncs", version="1.0.0", example=np.eye(3), store=store)
    assert not made.manifest.pickled
    run_python(LEAN, made.path)


def test_a_skops_that_has_other_lists_is_imported_whole(run_python):
    code = (
        "import sys\n"
        "from modeldeploy.packaging.flavours import lean, skops\n"
        "lean._LISTER = 'no_such_function'\n"
        "module = skops.preload(lean=True)\n"
        "assert module is sys.modules['skops.io']\n"
        "from skops.io import _trusted_types as lists\n"
        "assert lists.SKLEARN_ESTIMATOR_TYPE_NAMES and lists.NUMPY_UFUNC_TYPE_NAMES\n"
    )
    run_python(code)
