"""The same fitted model is the same digest, in this process and in any other."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

FIT = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from sklearn.datasets import load_iris
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
X, y = load_iris(return_X_y=True, as_frame=True)
digests = {}
for name, code in json.loads(sys.argv[2]).items():
    scope = {"X": X, "y": y, "np": np, "example": X.head(), "__name__": "__main__"}
    exec(compile(code, sys.argv[1] + "/cell.py", "exec"), scope)
    store = Store(Path(sys.argv[1]))
    digests[name] = package(scope["model"], name=name, version="1.0.0", example=scope["example"], store=store).digest
sys.stdout.write(json.dumps(digests))
"""

MODELS = {
    "pipeline": """
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.linear_model import LogisticRegression
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
""",
    "forest": """
from sklearn.ensemble import RandomForestClassifier
model = RandomForestClassifier(5, random_state=0, n_jobs=2).fit(X, y)
""",
    "boosting": """
from sklearn.ensemble import HistGradientBoostingClassifier
model = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(X, y)
""",
    "encoder": """
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
example = ["the good film", "a bad film", "some good book"]
model = make_pipeline(TfidfVectorizer(stop_words=["the", "a", "some"]), Ridge()).fit(example, [1.0, 0.0, 1.0])
""",
    "estimator": """
from sklearn.base import BaseEstimator, ClassifierMixin
class Own(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.names_ = {name: at for at, name in enumerate(X.columns)}
        return self
    def predict(self, X):
        return np.full(len(X), self.classes_[0])
model = Own().fit(X, y)
""",
    "function": """
LIMITS = {"low": 1.0, "high": 2.0}
def helper(values):
    return np.clip(values, LIMITS["low"], LIMITS["high"])
def model(table):
    return helper(table.iloc[:, 0])
""",
    "xgboost": """
import xgboost
model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(X, y)
""",
    "lightgbm": """
import lightgbm
model = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(X, y)
""",
    "torch": """
import torch
torch.manual_seed(0)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)
    def forward(self, rows):
        return torch.softmax(self.linear(rows), dim=1)
model = Net()
""",
}


# Nine models, each packaged in two processes: minutes on a busy machine.
@pytest.mark.timeout(300)
def test_another_process_with_another_hash_seed_gives_the_same_digests(run_python, tmp_path):
    def fit(seed):
        return json.loads(run_python(FIT, tmp_path / f"other-place-{seed}", json.dumps(MODELS), seed=seed))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(fit, ("1", "2"))
    assert first == second
    assert set(first) == set(MODELS)


def test_rounding_of_the_golden_outputs_alone_is_not_a_conflict(iris, store):
    """Threads sum in another order each time; the model is the same."""
    from sklearn.linear_model import LinearRegression

    from modeldeploy.packaging import package as module

    model = LinearRegression().fit(*iris)
    first = module.package(model, name="iris", version="1.0.0", example=iris[0].head(), store=store)
    original = module.golden_of

    def wobbling(predict, sample, method):
        golden = original(predict, sample, method)
        golden.outputs["prediction"] = np.nextafter(golden.outputs["prediction"], 9.0)
        return golden

    module.golden_of = wobbling
    try:
        again = module.package(model, name="iris", version="1.0.0", example=iris[0].head(), store=store)
    finally:
        module.golden_of = original
    assert again == first
