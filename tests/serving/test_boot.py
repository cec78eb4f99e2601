import numpy as np
import pytest

from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.loading import load
from modeldeploy.serving.boot import check_golden
from modeldeploy.values.tolerance import Tolerance


def test_a_model_in_8_bits_may_be_off_by_what_its_manifest_says_and_no_more(store):
    from sklearn.linear_model import LinearRegression

    from modeldeploy.packaging.package import package

    rows = np.arange(12.0).reshape(6, 2)
    fitted = LinearRegression().fit(rows, rows.sum(axis=1))
    model = load(package(fitted, name="line", version="1.0.0", example=rows, store=store))
    model.golden.outputs["prediction"] = model.golden.outputs["prediction"] + 0.01
    with pytest.raises(IntegrityError, match="does not give its recorded answers"):
        check_golden(model, Tolerance())
    check_golden(model, Tolerance(float64=(0.0, 0.02)))
